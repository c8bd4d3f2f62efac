"""Where settings are said: flags, the environment, .env, ratelimit.toml and pyproject.toml.

A key is wrapped as it is read. The value of a name that is not known is wrapped too, for it may be a key under a
misspelt name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from ratelimit.errors import BadSettings, printable
from ratelimit.limits.toml import parse_toml
from ratelimit.secret import Secret
from ratelimit.settings.declared import AZURE_KEY, LOWER, NAMES, PREFIX, TYPES, VENDOR, in_environment, unknown

_MOST_DOTENV = 100_000  # bytes; parsing takes a second for each megabyte or two


@dataclass(frozen=True, slots=True)
class Place:
    """What one source says, by setting, and what the source calls each."""

    values: Mapping[str, object]
    where: Mapping[str, str]


def environment() -> Mapping[str, object]:
    """Return the variables of the environment that concern this project."""
    return _ours(os.environ)


def dotenv() -> Mapping[str, object]:
    """Return the variables of `.env` that concern this project."""
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
    if (size := path.stat().st_size) > _MOST_DOTENV:
        return {}, f"it has {size:,} bytes, at most {_MOST_DOTENV:,} are read"
    from pydantic_settings import BaseSettings, DotEnvSettingsSource  # noqa: PLC0415 - as above

    said = DotEnvSettingsSource(BaseSettings, path, "utf-8-sig", case_sensitive=True).env_vars
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        name = line.strip().removeprefix("export ").lstrip().partition("=")[0].split(maxsplit=1)[:1]
        if name and _is_ours(name[0]) and name[0] not in said:
            return {}, f"line {number} is not {name[0]}=value"
    return _ours(said), ""


def _ours(variables: Mapping[str, str | None]) -> Mapping[str, object]:
    """Return the variables that concern this project and are not blank."""
    return {
        name: wrapped(name.removeprefix(PREFIX).lower() if name.startswith(PREFIX) else VENDOR.get(name, ""), text)
        for name, value in variables.items()
        if _is_ours(name) and (text := (value or "").strip())
    }


def _is_ours(variable: str) -> bool:
    return variable.startswith(PREFIX) or variable in VENDOR or variable == AZURE_KEY


def files() -> tuple[Place, Place]:
    """Return what ratelimit.toml and pyproject.toml say; a table for tiers in the former makes it the tiers_file."""
    own, others = _table(Path("ratelimit.toml"), ("settings",))
    for name in others:
        if name in NAMES or get_close_matches(name, ["settings"]):
            raise BadSettings(f"{name} in ratelimit.toml", "is in no table", "write settings under [settings]")
    place = named("{} in [settings] of ratelimit.toml", own)
    if others and "tiers_file" not in own:
        place = Place(
            {**place.values, "tiers_file": Path("ratelimit.toml")}, {**place.where, "tiers_file": "ratelimit.toml"}
        )
    return place, named(
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
    table = {name: wrapped(name, value) for name, value in table.items()}
    if problem:
        raise BadSettings(str(path), f"cannot be read ({problem})", "correct it, or remove it")
    return table, beside


def _parsed(path: Path) -> tuple[dict[str, Any], str]:
    try:
        return parse_toml(path.read_bytes()), ""
    except RecursionError:
        return {}, "its values are nested too deeply"
    except (OSError, ValueError) as error:
        return {}, _unreadable(error)


def _unreadable(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return printable(error.strerror or str(error)) if isinstance(error, OSError) else printable(str(error))


def named(template: str, table: Mapping[str, object], spell: Callable[[str], str] = str) -> Place:
    """Return a place that has settings under their names."""
    where = {name: template.format(spell(name)) for name in table}
    for name in table:
        if name not in NAMES:
            raise unknown(where[name], name, spell)
    return Place({name: _tidied(name, value) for name, value in table.items()}, where)


def spelt(template: str, variables: Mapping[str, object], *, azure: bool) -> Place:
    """Return a place that calls settings by the names of variables, and has text for everything."""
    ours = {in_environment(name): name for name in NAMES}
    for variable in variables:
        if variable.startswith(PREFIX) and variable not in ours:
            raise unknown(template.format(variable), variable.removeprefix(PREFIX).lower(), in_environment)
    # A key for one vendor is not sent to another.
    keys = {AZURE_KEY: "api_key"} if azure else {}
    vendor = {variable: name for variable, name in VENDOR.items() if not azure or name != "api_key"}
    values: dict[str, object] = {}
    where: dict[str, str] = {}
    for variable, name in {**ours, **keys, **vendor}.items():
        if variable in variables and name not in values:
            values[name] = _tidied(name, _number(name, variables[variable]))
            where[name] = template.format(variable)
    return Place(values, where)


def wrapped(name: str, value: object) -> object:
    """Return what may be a key as a secret: that of the key's setting, or of one that nobody knows."""
    if isinstance(value, Secret) or (name in NAMES and name != "api_key"):
        return value
    return Secret(value.strip() if isinstance(value, str) else "")


_SWITCHED = {**dict.fromkeys(("true", "1", "yes", "on"), True), **dict.fromkeys(("false", "0", "no", "off"), False)}


def _number(name: str, text: object) -> object:
    """Return a variable's text as the number or the truth value that the setting wants, if it is one."""
    if TYPES[name] is bool and isinstance(text, str):
        return _SWITCHED.get(text.strip().lower(), text)
    wanted = {int, float} & {TYPES[name], *get_args(TYPES[name])}
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
        path = Path(value)
        try:
            return path.expanduser()
        except RuntimeError:  # of nobody who is known; by this name it will not be found
            return path
    return value.lower().replace(" ", "-") if name in LOWER else value
