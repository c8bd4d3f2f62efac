"""What happens in a lane, told to an observer as it happens.

An observer is called synchronously and may not answer. Without one, no event is even made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ratelimit.limits.drift import Change


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a lane, at a time of the loop's clock."""

    lane: str
    at: float


@dataclass(frozen=True, slots=True)
class Queued(Event):
    """A request has come in and waits its turn."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """The head of the lane waits for a limit until a moment that is known."""

    limit: str
    until: float


@dataclass(frozen=True, slots=True)
class Granted(Event):
    """A request may leave; it has waited so many seconds."""

    waited: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """A turn has ended: used, unsent, refused or unknown."""

    how: str
    tokens: float


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The server has refused a request because of a limit."""

    limit: str | None
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """A limit is not as it was: retuned, drifted, cooled down, its burst shrunk, its share or reserve adapted."""

    change: Change


Observer = Callable[[Event], None]
