"""The base of every error, and how text from elsewhere is shown in one."""

from __future__ import annotations

from typing import Any


class RateLimitError(Exception):
    """Anything this project raises on purpose; `exit_code` is what the command line ends with because of it.

    >>> import ratelimit
    >>> try:
    ...     ratelimit.open(tier="tier-9")
    ... except ratelimit.RateLimitError as error:
    ...     print(error)
    --tier cannot be 'tier-9': write one of free, tier-1, tier-2, tier-3, tier-4, tier-5
    """

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it cross to another process: what waits there for a result would wait for ever without."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[RateLimitError], args: tuple[Any, ...], about: dict[str, Any]) -> RateLimitError:
    error = kind.__new__(kind, *args)  # what it says is said already, so `__init__` has nothing to add
    error.__dict__.update(about)
    return error


class JobStopped(RateLimitError):
    """Nothing that is left can succeed until somebody acts; what is left is untouched."""

    exit_code = 3


def printable(text: str, most: int = 500) -> str:
    """Return text from elsewhere so that a terminal shows it and does nothing else."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text[:most]
    )
    return f"{shown}..." if len(text) > most else shown


def toml_key(name: str) -> str:
    """A name as a key of TOML, in quotes where it needs them, as a terminal may show it."""
    if name and len(name) <= 100 and all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        return name
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(quoted, 100)}"'
