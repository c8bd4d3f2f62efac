"""Every error a user can meet.

One base, so that a program can catch the project's errors in one line; one class for each thing a program may want to
tell apart. A message names the thing, the value, and what to do about it.
"""

from __future__ import annotations

from ratelimit.errors.clocks import Deadlock, Livelock
from ratelimit.errors.files import AlreadyRunning, InputUnreadable, OutputFailed, OutputUnusable, RequestsChanged
from ratelimit.errors.requests import BadRequest, InputTooLong, OutputTooLong, RequestInvalid
from ratelimit.errors.root import JobStopped, RateLimitError, printable, toml_key
from ratelimit.errors.service import (
    HostNotTrusted,
    KeyRejected,
    ModelGone,
    NotAnswered,
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
