"""What a reply's headers say about the limits: `x-ratelimit-*`, `retry-after*` and `x-should-retry` -> `Observed`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ratelimit.limits.durations import parse_duration
from ratelimit.limits.refusals import Refusal, parse_refusal

__all__ = ["NOTHING", "Observed", "Reading", "Refusal", "parse", "parse_duration", "parse_refusal"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One limit as the server claims it stands."""

    unit: str
    limit: float | None
    remaining: float | None
    reset: float | None
    scope: str = "organization"
    window: float | None = None

    def implied_window(self) -> float | None:
        """The window in which `remaining` and `reset` agree; None when none or several do."""
        raise NotImplementedError

    def is_linear(self, window: float) -> bool | None:
        """Whether `remaining` and `reset` agree as a bucket refilled over `window` would say; None: cannot tell."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything one reply says about the limits; a field that was absent or absurd is None."""

    readings: tuple[Reading, ...] = ()
    retry_after: float | None = None
    should_retry: bool | None = None
    refusal: Refusal | None = None


NOTHING = Observed()


def parse(headers: Mapping[str, str], *, now: float | None = None) -> Observed:
    """Read a reply's headers; never raises, whatever they hold."""
    raise NotImplementedError
