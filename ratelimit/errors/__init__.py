"""Every error a user can meet.

One base, so that a program can catch the project's errors in one line; one class for each thing a program may want to
tell apart. A message names the thing, the value, and what to do about it.

Those of one subject load when one of them is first asked for: a command line that only helps needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratelimit.errors.root import JobStopped, RateLimitError, printable, toml_key

if TYPE_CHECKING:
    from ratelimit.errors.clocks import Deadlock, Livelock
    from ratelimit.errors.files import (
        AlreadyRunning,
        InputChanged,
        InputUnreadable,
        OutputFailed,
        OutputUnusable,
        RequestsChanged,
    )
    from ratelimit.errors.requests import BadRequest, InputTooLong, OutputTooLong, RequestInvalid
    from ratelimit.errors.service import (
        HostNotTrusted,
        KeyRejected,
        ModelGone,
        NotAnswered,
        NothingThere,
        QuotaExhausted,
        RequestFailed,
    )
    from ratelimit.errors.setup import (
        BadClient,
        BadMockOption,
        BadSettings,
        BadTable,
        ModelNotInTier,
        NoKey,
        PortTaken,
        SharedStoreAway,
        StoreUnusable,
        UnknownModel,
        UnknownTier,
    )
    from ratelimit.errors.turns import AlreadySettled, DeadlinePassed, NeverFits, WaitedTooLong

__all__ = [
    "AlreadyRunning",
    "AlreadySettled",
    "BadClient",
    "BadMockOption",
    "BadRequest",
    "BadSettings",
    "BadTable",
    "DeadlinePassed",
    "Deadlock",
    "HostNotTrusted",
    "InputChanged",
    "InputTooLong",
    "InputUnreadable",
    "JobStopped",
    "KeyRejected",
    "Livelock",
    "ModelGone",
    "ModelNotInTier",
    "NeverFits",
    "NoKey",
    "NotAnswered",
    "NothingThere",
    "OutputFailed",
    "OutputTooLong",
    "OutputUnusable",
    "PortTaken",
    "QuotaExhausted",
    "RateLimitError",
    "RequestFailed",
    "RequestInvalid",
    "RequestsChanged",
    "SharedStoreAway",
    "StoreUnusable",
    "UnknownModel",
    "UnknownTier",
    "WaitedTooLong",
    "printable",
    "toml_key",
]

_SUBJECTS = ("clocks", "files", "requests", "service", "setup", "turns")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for subject in _SUBJECTS:
            found = vars(import_module(f"{__name__}.{subject}"))
            if name in found:
                globals()[name] = found[name]
                return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
