"""What a deadline asks of the two routes of a lane. Pure: numbers in, decisions out.

Nobody promises when a batch ends, so what it has not answered counts as unanswered. As long as the live API could still
answer all of that in time, batches cost half and risk nothing. The latest moment to move over is when it no longer
could: its time for what is unanswered, a tenth more, and the time that recalling a batch takes. From then on the lane
is behind, and the live API works at its full speed, first on rows that are in no batch, then on those of the batches
that are slowest. What batches answer meanwhile may bring the lane out of it again.

Shortly before the deadline all is left to the live API, if it can do that in half an hour. If not, the deadline does
not hold, whatever is done; then batches go on, for they may answer before the live API comes to their rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ratelimit.limits.bucket import MINUTE

RECALLING = 900.0  # seconds: the service takes up to ten minutes to cancel; the rest is for a look, and for fetching
AHEAD = 900.0  # seconds of work that the live API has before it, so that it never waits for a batch to be cancelled
_MORE = 1.1  # times what the limits allow: retries, slow answers, other programs on the key
_STEPS = 2000  # of a deadline, in which it is foretold
_EASE = 0.02  # of the time left: so much to spare ends being behind


@dataclass(frozen=True, slots=True)
class Work:
    """Requests, and the tokens that the live API charges for them."""

    requests: float = 0.0
    tokens: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.requests + other.requests, self.tokens + other.tokens)

    def times(self, part: float) -> Work:
        """Return a part of it."""
        return Work(self.requests * part, self.tokens * part)


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit of the live API: what may go at once, and what flows in."""

    unit: str
    level: float
    rate: float
    window: float

    @property
    def flowing(self) -> Allowance:
        """The same with its burst used up; what a day has is no burst."""
        return replace(self, level=0.0) if self.window <= MINUTE else self


def live_seconds(work: Work, allowances: Iterable[Allowance]) -> float:
    """Return the least time in which the live API answers this."""
    need = {"requests": work.requests, "tokens": work.tokens}
    waits = ((need.get(each.unit, 0.0) - each.level) / each.rate if each.rate else math.inf for each in allowances)
    return max(0.0, *waits) if work.requests else 0.0


def rows_within(seconds: float, row: Work, allowances: Iterable[Allowance]) -> float:
    """Return how many rows like this one the live API takes in so long."""
    need = {"requests": row.requests, "tokens": row.tokens}
    takes = ((each.level + each.rate * seconds) / need[each.unit] for each in allowances if need.get(each.unit))
    return max(min(takes, default=math.inf), 0.0)


def spare(left: float, seconds: float) -> float:
    """Return how long batches may still go unanswered, with so much time left and so much of it for the live API."""
    return left - RECALLING - max(seconds, 0.0) * _MORE


def behind(left: float, seconds: float, *, before: bool) -> bool:
    """Whether the live API must work now; once so, until there is something to spare."""
    return spare(left, seconds) < (max(left, 0.0) * _EASE if before else 0.0)


def ample(left: float, seconds: float) -> bool:
    """Whether batches may still do some good: there is time for them, or the live API alone would be late by far."""
    return max(left, seconds) > 2 * RECALLING


def foretold(deadline: float, *, live: float, queue: float, batch: float) -> tuple[float, float]:
    """Return which part of a job batches answer, and after how many seconds all is done, if all goes evenly.

    The live API takes `live` seconds for all of it; the queue holds a part of it, which batches answer in `batch`.
    """
    step = deadline / _STEPS
    left, batched, now, late = 1.0, 0.0, 0.0, False
    while left > 0:
        late = behind(deadline - now, left * live, before=late)
        if max(deadline - now - RECALLING, left * live - 2 * RECALLING) > 0:
            came = min(queue * step / batch, left)
            batched, left = batched + came, left - came
        if late:
            left -= min(step / live, left) if live > 0 else left
        now += step
    return batched, now


class Progress(Protocol):
    """How far a batch has come."""

    @property
    def unanswered(self) -> int:
        """Rows that it has not answered yet."""

    @property
    def answered(self) -> int:
        """Rows that it has."""

    def age(self, now: float) -> float:
        """Seconds since it was created."""


def slowest(batches: Sequence[Progress], now: float) -> list[int]:
    """Return the places of batches that have something left, the one that will take longest first."""
    left = (place for place, batch in enumerate(batches) if batch.unanswered)
    return sorted(left, key=lambda place: to_go(batches[place], now), reverse=True)


def to_go(batch: Progress, now: float) -> float:
    """Return how long a batch still takes if it goes on as it has; one that stands still takes ever longer."""
    return batch.age(now) * batch.unanswered / (batch.answered + 1)
