"""Settings: flags, environment, .env and TOML files in, one frozen plain value out.

pydantic-settings reads, merges and checks what they say, here and nowhere else. It is imported when settings load,
for it takes longer than a whole `ratelimit --help`. What leaves is a plain value that knows nothing of it.

An API key is wrapped as it is read, before anything can fail: it is in no message, no repr, and no local variable that
a traceback could show. The value of a name that is not known is wrapped too, for it may be a key under a misspelt name.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

from ratelimit.errors import BadSettings, printable
from ratelimit.secret import Secret

__all__ = ["AZURE_KEY", "NAMES", "PREFIX", "VENDOR", "Secret", "Settings", "load_settings"]

Tier = Literal["free", "tier-1", "tier-2", "tier-3", "tier-4", "tier-5"]
Charges = Literal["headers", "usage", "estimate"]
ChargeFormula = Literal["auto", "chat_2025", "chat_2024", "documented", "exact_plus_cap", "exact"]
LogLevel = Literal["debug", "info", "warning", "error"]

PREFIX: Final = "RATELIMIT_"
VENDOR: Final[Mapping[str, str]] = {
    "OPENAI_API_KEY": "api_key",
    "OPENAI_BASE_URL": "base_url",
    "OPENAI_ORG_ID": "organization",
    "OPENAI_PROJECT_ID": "project",
}
"""The vendor's own variables, and what each sets; ours comes first where both are in one place."""
AZURE_KEY: Final = "AZURE_OPENAI_API_KEY"
_OPENAI: Final = "https://api.openai.com/v1"
_LIST: Final = "docs/settings.md lists them all"


def _write(what: str, **bounds: object) -> Mapping[str, Any]:
    """Return a setting's metadata: what to write for it, and what pydantic is to hold it to."""
    return {"write": f"write {what}", "bounds": bounds}


def _one_of(choices: object) -> str:
    return f"one of {', '.join(get_args(choices))}"


_SECONDS: Final = "a number of seconds above 0"
_COUNT: Final = "a whole number, 1 or more"
_WORD: Final = r"^[!-~]+$"  # goes into a header or a URL: printable ASCII without spaces


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; `docs/settings.md` says what each is for."""

    # The lowest tier that may use every model, and right for anybody without headers; the first reply corrects it.
    tier: Tier = field(default="tier-1", metadata=_write(_one_of(Tier)))
    base_url: str = field(default=_OPENAI, metadata=_write(f"an http or https URL such as {_OPENAI}"))
    api_key: Secret | None = field(
        default=None, metadata=_write("the key as the vendor gave it: letters, digits and signs, no spaces")
    )
    organization: str | None = field(default=None, metadata=_write("an id such as org-abc123", pattern=_WORD))
    project: str | None = field(default=None, metadata=_write("an id such as proj_abc123", pattern=_WORD))
    tiers_file: Path | None = field(default=None, metadata=_write("the path of a TOML file that exists"))
    slack: float = field(default=1.0, metadata=_write("a number of seconds, 0 or more", ge=0))
    pace: float = field(default=10.0, metadata=_write("a number, 1 or more", ge=1))
    concurrency: int = field(default=1000, metadata=_write(_COUNT, ge=1))
    rpm: int | None = field(default=None, metadata=_write(_COUNT, ge=1))
    tpm: int | None = field(default=None, metadata=_write(_COUNT, ge=1))
    rpd: int | None = field(default=None, metadata=_write(_COUNT, ge=1))
    connect_timeout: float = field(default=10.0, metadata=_write(_SECONDS, gt=0))
    first_byte_timeout: float = field(default=600.0, metadata=_write(_SECONDS, gt=0))
    between_bytes_timeout: float = field(default=60.0, metadata=_write(_SECONDS, gt=0))
    reply_timeout: float = field(default=900.0, metadata=_write(_SECONDS, gt=0))
    max_body_bytes: int = field(default=64 * 1024 * 1024, metadata=_write(_COUNT, ge=1))
    retry_attempts: int = field(default=6, metadata=_write(_COUNT, ge=1))
    longest_wait: float = field(default=60.0, metadata=_write(_SECONDS, gt=0))
    retry_share: float = field(default=0.2, metadata=_write("a number from 0 to 1", ge=0, le=1))
    charges: Charges = field(default="headers", metadata=_write(_one_of(Charges)))
    charge_formula: ChargeFormula = field(default="auto", metadata=_write(_one_of(ChargeFormula)))
    azure_api_version: str | None = field(default=None, metadata=_write("a version such as 2024-10-21", pattern=_WORD))
    log_level: LogLevel = field(default="warning", metadata=_write(_one_of(LogLevel)))
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def origin(self, name: str) -> str:
        """Return where the value of a setting comes from, in words."""
        if name not in NAMES:
            raise _unknown(name, name)
        return self.origins.get(name, "the default")


_FIELDS: Final = {each.name: each for each in fields(Settings) if "write" in each.metadata}
NAMES: Final[tuple[str, ...]] = tuple(_FIELDS)
"""The settings, in the order in which they are documented."""
_TYPES: Final = {name: kind for name, kind in get_type_hints(Settings).items() if name in _FIELDS}
_LOWER: Final = frozenset(("tier", "charges", "charge_formula", "log_level"))


@dataclass(frozen=True, slots=True)
class _Place:
    """What one source says, by setting, and what the source calls each."""

    values: Mapping[str, object]
    where: Mapping[str, str]


def load_settings(**flags: object) -> Settings:
    """Return the settings as flags (None: not given), environment, working directory and defaults say, in that order.

    Raises `BadSettings` for a value that cannot be and a name that is not known.
    """
    flags = {name: _wrapped(name, value) for name, value in flags.items() if value is not None}
    variables, dotenv, files = _environment(), _dotenv(), _files()
    given = _named("{}", flags, _option)
    azure = any("azure_api_version" in place.values for place in (given, *files)) or any(
        f"{PREFIX}AZURE_API_VERSION" in each for each in (variables, dotenv)
    )
    places = [
        given,
        _spelt("{} in the environment", variables, azure=azure),
        _spelt("{} in .env", dotenv, azure=azure),
        *files,
    ]
    origins = {name: place.where[name] for place in reversed(places) for name in place.values}
    values, wrong = _validated([place.values for place in places])
    if wrong is not None:
        raise _refused(wrong, origins[wrong], next(p.values[wrong] for p in places if wrong in p.values))
    settings = Settings(**values, origins=origins)
    _check(settings)
    return replace(settings, base_url=settings.base_url.rstrip("/"))


def _validated(sources: Iterable[Mapping[str, object]]) -> tuple[dict[str, Any], str | None]:
    """Return the merged and checked values, or the name of the first setting whose value cannot be.

    An error of pydantic's holds the value it complains about, so none leaves this function.
    """
    from pydantic import Field, ValidationError, create_model  # noqa: PLC0415 - slow, so not for those who only import
    from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource  # noqa: PLC0415 - as above

    class Sourced(BaseSettings, strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: PydanticBaseSettingsSource, **__: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, dict(values)) for values in sources)

    declared: dict[str, Any] = {
        name: (_TYPES[name], Field(each.default, **each.metadata["bounds"])) for name, each in _FIELDS.items()
    }
    try:
        model = create_model("Model", __base__=Sourced, **declared)()
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors(include_input=False)}
        return {}, next(name for name in NAMES if name in wrong)
    return {name: getattr(model, name) for name in NAMES}, None


def _environment() -> Mapping[str, object]:
    return _ours(os.environ)


def _dotenv() -> Mapping[str, object]:
    path, problem = Path(".env"), ""
    if not path.is_file():
        return {}
    try:
        variables, problem = _parsed_dotenv(path)
    except (OSError, UnicodeDecodeError) as error:
        problem = _unreadable(error)
    if problem:
        raise BadSettings(".env", f"cannot be read ({problem})", "correct it, or remove it")
    return variables


def _parsed_dotenv(path: Path) -> tuple[Mapping[str, object], str]:
    """Return what a file sets, or which line should set something of ours and does not: parsing leaves it out."""
    from pydantic_settings import BaseSettings, DotEnvSettingsSource  # noqa: PLC0415 - as above

    said = DotEnvSettingsSource(BaseSettings, path, "utf-8", case_sensitive=True).env_vars
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        name = line.strip().removeprefix("export ").lstrip().partition("=")[0].split(maxsplit=1)[:1]
        if name and _is_ours(name[0]) and name[0] not in said:
            return {}, f"line {number} is not {name[0]}=value"
    return _ours(said), ""


def _ours(variables: Mapping[str, str | None]) -> Mapping[str, object]:
    """Return the variables that concern this project and are not blank."""
    return {
        name: _wrapped(name.removeprefix(PREFIX).lower() if name.startswith(PREFIX) else VENDOR.get(name, ""), text)
        for name, value in variables.items()
        if _is_ours(name) and (text := (value or "").strip())
    }


def _is_ours(variable: str) -> bool:
    return variable.startswith(PREFIX) or variable in VENDOR or variable == AZURE_KEY


def _files() -> tuple[_Place, _Place]:
    """Return what ratelimit.toml and pyproject.toml say; a table for tiers in the former makes it the tiers_file."""
    own, others = _table(Path("ratelimit.toml"), ("settings",))
    for name in others:
        if name in NAMES or get_close_matches(name, ["settings"]):
            raise BadSettings(f"{name} in ratelimit.toml", "is in no table", "write settings under [settings]")
    place = _named("{} in [settings] of ratelimit.toml", own)
    if others and "tiers_file" not in own:
        place = _Place(
            {**place.values, "tiers_file": Path("ratelimit.toml")}, {**place.where, "tiers_file": "ratelimit.toml"}
        )
    return place, _named(
        "{} in [tool.ratelimit] of pyproject.toml", _table(Path("pyproject.toml"), ("tool", "ratelimit"))[0]
    )


def _table(path: Path, header: tuple[str, ...]) -> tuple[Mapping[str, object], tuple[str, ...]]:
    """Return one table of a file, and the names of what stands beside it."""
    if not path.is_file():
        return {}, ()
    table, problem = _parsed(path)
    beside: tuple[str, ...] = ()
    for name in header:
        beside = tuple(key for key in table if key != name)
        inner = table.get(name, {})
        if not isinstance(inner, dict):
            problem = f"{name} is no table"
            break
        table = inner
    table = {name: _wrapped(name, value) for name, value in table.items()}
    if problem:
        raise BadSettings(str(path), f"cannot be read ({problem})", "correct it, or remove it")
    return table, beside


def _parsed(path: Path) -> tuple[dict[str, Any], str]:
    try:
        return tomllib.loads(path.read_text("utf-8")), ""
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, _unreadable(error)


def _unreadable(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return printable(error.strerror or str(error)) if isinstance(error, OSError) else printable(str(error))


def _named(template: str, table: Mapping[str, object], spell: Callable[[str], str] = str) -> _Place:
    """Return a place that has settings under their names."""
    where = {name: template.format(spell(name)) for name in table}
    for name in table:
        if name not in NAMES:
            raise _unknown(where[name], name, spell)
    return _Place({name: _tidied(name, value) for name, value in table.items()}, where)


def _spelt(template: str, variables: Mapping[str, object], *, azure: bool) -> _Place:
    """Return a place that calls settings by the names of variables, and has text for everything."""
    ours = {_variable(name): name for name in NAMES}
    for variable in variables:
        if variable.startswith(PREFIX) and variable not in ours:
            raise _unknown(template.format(variable), variable.removeprefix(PREFIX).lower(), _variable)
    # A key for one vendor is not sent to another.
    keys = {AZURE_KEY: "api_key"} if azure else {}
    vendor = {variable: name for variable, name in VENDOR.items() if not azure or name != "api_key"}
    values: dict[str, object] = {}
    where: dict[str, str] = {}
    for variable, name in {**ours, **keys, **vendor}.items():
        if variable in variables and name not in values:
            values[name] = _tidied(name, _number(name, variables[variable]))
            where[name] = template.format(variable)
    return _Place(values, where)


def _wrapped(name: str, value: object) -> object:
    """Return what may be a key as a secret: that of the key's setting, or of one that nobody knows."""
    if isinstance(value, Secret) or (name in NAMES and name != "api_key"):
        return value
    return Secret(value.strip() if isinstance(value, str) else "")


def _number(name: str, text: object) -> object:
    """Return a variable's text as the number that the setting wants, if it is one."""
    wanted = {int, float} & {_TYPES[name], *get_args(_TYPES[name])}
    try:
        return wanted.pop()(text) if wanted and isinstance(text, str) else text
    except ValueError:
        return text


def _tidied(name: str, value: object) -> object:
    """Return a value as it is meant, where that is more than one way to write it."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if name == "tiers_file":
        return Path(value).expanduser()
    return value.lower().replace(" ", "-") if name in _LOWER else value


def _check(settings: Settings) -> None:
    """Raise for a value of the right kind that still cannot be."""
    for name, good in _RULES.items():
        if (value := getattr(settings, name)) is not None and not good(value):
            raise _refused(name, settings.origin(name), value)
    if settings.azure_api_version and settings.base_url.rstrip("/") == _OPENAI:
        raise BadSettings(
            settings.origin("azure_api_version"),
            f"cannot go with {_OPENAI}, which is base_url by {settings.origin('base_url')}",
            f"set {PREFIX}BASE_URL to https://NAME.openai.azure.com/openai, or unset it",
        )


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        port_is_one = url.port is None or url.port > 0
    except ValueError:
        return False
    plain = not (url.query or url.fragment or "@" in url.netloc) and text.isascii() and text.isprintable()
    return url.scheme in {"http", "https"} and bool(url.hostname) and port_is_one and plain and " " not in text


def _is_key(secret: Secret) -> bool:
    return all("!" <= c <= "~" for c in secret.reveal()) and bool(secret.reveal())


_RULES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "base_url": _is_url,
    "api_key": _is_key,
    "tiers_file": Path.is_file,
}


def _refused(name: str, where: str, value: object) -> BadSettings:
    hidden = name == "api_key" or (name == "base_url" and "@" in str(value))
    shown = (
        "what it is (not shown)" if hidden else printable(repr(str(value) if isinstance(value, Path) else value), 100)
    )
    return BadSettings(where, f"cannot be {shown}", _FIELDS[name].metadata["write"])


def _unknown(where: str, name: str, spell: Callable[[str], str] = str) -> BadSettings:
    near = get_close_matches(name, NAMES, 1)
    return BadSettings(where, "is no setting", f"did you mean {spell(near[0])}?" if near else _LIST)


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
