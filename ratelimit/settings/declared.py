"""What can be set: every setting with its kind, its bounds and its default, as one frozen plain value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints

from ratelimit.errors import BadSettings
from ratelimit.secret import Secret

Tier = Literal["free", "tier-1", "tier-2", "tier-3", "tier-4", "tier-5"]
Charges = Literal["headers", "usage", "estimate"]
ChargeFormula = Literal["auto", "chat_2025", "chat_2024", "documented", "exact_plus_cap", "exact"]
BatchFiles = Literal["delete", "keep"]
WhenDown = Literal["share", "stop"]
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
OPENAI: Final = "https://api.openai.com/v1"
LIST: Final = "docs/settings.md lists them all"


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
    base_url: str = field(default=OPENAI, metadata=_write(f"an http or https URL such as {OPENAI}"))
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
    batch_files: BatchFiles = field(default="delete", metadata=_write(_one_of(BatchFiles)))
    shared: str | None = field(
        default=None, metadata=_write("file, off, or a URL such as redis://localhost, rediss://HOST or unix:///PATH")
    )
    weight: float = field(default=1.0, metadata=_write("a number above 0", gt=0))
    when_shared_is_down: WhenDown = field(default="share", metadata=_write(_one_of(WhenDown)))
    log_level: LogLevel = field(default="warning", metadata=_write(_one_of(LogLevel)))
    otel: bool = field(default=False, metadata=_write("true or false"))
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def origin(self, name: str) -> str:
        """Return where the value of a setting comes from, in words."""
        if name not in NAMES:
            raise unknown(name, name)
        return self.origins.get(name, "the default")


FIELDS: Final = {each.name: each for each in fields(Settings) if "write" in each.metadata}
NAMES: Final[tuple[str, ...]] = tuple(FIELDS)
"""The settings, in the order in which they are documented."""
TYPES: Final = {name: kind for name, kind in get_type_hints(Settings).items() if name in FIELDS}
LOWER: Final = frozenset(("tier", "charges", "charge_formula", "batch_files", "log_level", "when_shared_is_down"))


def unknown(where: str, name: str, spell: Callable[[str], str] = str) -> BadSettings:
    """Return the error for a name that is no setting."""
    near = get_close_matches(name, NAMES, 1)
    return BadSettings(where, "is no setting", f"did you mean {spell(near[0])}?" if near else LIST)


def in_environment(name: str) -> str:
    """Return what the environment calls a setting."""
    return f"{PREFIX}{name.upper()}"


def option(name: str) -> str:
    """Return what the command line calls a setting."""
    return f"--{name.replace('_', '-')}"
