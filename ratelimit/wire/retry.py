"""Asking again: how long to wait, when to stop, and how much asking again a job can afford.

The first attempt runs bare; tenacity comes in with the first failure. Each attempt takes a new turn, so retries are
paid for like anything else. Refusals by a limit use up no attempts and add no wait here: the lane is closed for as long
as the service told, and the retry stands in it at its old place.

Retries are a share of what succeeds, over all requests. When that is spent and most attempts fail, the service is down:
sending pauses, and one request at a time goes out to see, less and less often, until one succeeds. Attempts made in an
outage count against nobody, nor do those made while everything fails and it is only not yet known that it lasts.

Until that is known it is the foremost in line who fails, again and again, and a slow lane asks nobody else meanwhile.
So a request is given up only once another is known to have done better, or there is no other left to try: else it goes
back to the end of the line, and the next one is asked.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from ratelimit.errors import NotAnswered, RateLimitError
from ratelimit.wire.judge import Verdict

T = TypeVar("T")

_WEIGHT = 0.02  # of one attempt in the share that fails: three in ten must never look like six
_DOWN = 0.6
_STREAK = 20  # failures in a row: at three in ten failing, once in 3e10 attempts
_FIRST_PROBE, _LAST_PROBE = 1.0, 30.0  # seconds between one request and the next while the service is down


@dataclass(frozen=True, slots=True)
class Policy:
    """How persistently to ask again."""

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 60.0
    share: float = 0.2  # retries per success that a job can afford
    reserve: float = 20  # retries that are free, so that small jobs retry too
    outlasts: bool = True  # failures while everything fails use up no attempts; else an outage is an error in the end


class Again(Exception):
    """An attempt failed in a way that is worth another."""

    def __init__(self, verdict: Verdict, *, counts: bool) -> None:
        super().__init__(verdict.kind)
        self.verdict = verdict
        self.counts = counts  # against the attempts of this request

    @property
    def error(self) -> RateLimitError:
        """What to raise when there is no next attempt."""
        return self.verdict.error or NotAnswered("no answer", sent=True)


class Patience:
    """Of one request: how often it has failed, when to stop, and how long to wait until then."""

    def __init__(self, policy: Policy, first: Again, to_blame: Callable[[], bool]) -> None:
        self._policy = policy
        self._to_blame = to_blame
        self._last = first
        self._failures = int(first.counts)

    @property
    def used_up(self) -> bool:
        """Whether it has failed as often as it may; it is asked again only where it may not be to blame."""
        return self._failures >= self._policy.attempts

    def note(self, failure: Again) -> None:
        """Count one more failure."""
        self._last = failure
        self._failures += failure.counts

    def stop(self, _state: RetryCallState) -> bool:
        """Whether the last attempt was the last."""
        return self._last.counts and self.used_up and self._to_blame()

    def wait(self, _state: RetryCallState) -> float:
        """Seconds to wait: as told, else exponential with full jitter; none where the lane or the outage waits."""
        policy, verdict = self._policy, self._last.verdict
        if verdict.limited or verdict.slowed:
            return 0
        if verdict.after is not None:
            return min(max(verdict.after, 0), policy.longest_wait)
        if not self._last.counts:
            return 0
        doublings = min(self._failures - 1, 30)  # beyond, floats would overflow before the longest wait cut them
        return random.uniform(0, min(policy.first_wait * 2**doublings, policy.longest_wait))  # noqa: S311 - no secret


async def persist(
    failure: Again, attempt: Callable[[Patience], Awaitable[T]], policy: Policy, to_blame: Callable[[], bool]
) -> T:
    """After a first failure, run attempts until one succeeds, raises something final, or was the last.

    `to_blame` is asked of a request whose attempts are used up: whether it is the request that fails, or everything.
    """
    first: Again | None = failure
    patience = Patience(policy, failure, to_blame)
    trials = AsyncRetrying(
        stop=patience.stop,
        wait=patience.wait,
        retry=retry_if_exception_type(Again),
        sleep=asyncio.sleep,
        reraise=True,
    )
    try:
        async for trial in trials:
            with trial:
                if first is not None:  # what has failed already is the first trial
                    failed, first = first, None
                    raise failed
                try:
                    return await attempt(patience)
                except Again as another:
                    patience.note(another)
                    raise
    except Again as last:
        raise last.error from None
    raise AssertionError("tenacity ended without an outcome")


class Outage:
    """Whether the service is there at all; where it is not, the one place that waits for it to come back."""

    def __init__(self, policy: Policy) -> None:
        self.paused: bool = False
        self.heard_from: float = float("-inf")  # when the latest request left that was answered
        self._policy = policy
        self._left = policy.reserve
        self._failing = 0.0  # share of the attempts, the latest weighing most
        self._streak = 0  # failures since the service last said anything
        self._delay = _FIRST_PROBE
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def passed(self) -> bool:
        """Wait until the service may be asked; true if that is to see whether it is back."""
        if not self.paused:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._arm()
        return await waiter

    def succeeded(self, sent_at: float) -> None:
        """Note that the service has done what it was asked for at `sent_at`."""
        self._left = min(self._left + self._policy.share, self._policy.reserve * 50)
        self.answered(sent_at)

    def answered(self, sent_at: float) -> None:
        """Note that the service is there, whatever it says to what was sent at `sent_at`."""
        self.heard_from = max(self.heard_from, sent_at)
        self._streak = 0
        self._failing *= 1 - _WEIGHT
        if self.paused:
            self.paused = False
            self._delay = _FIRST_PROBE
            self._left = max(self._left, self._policy.reserve)
            self._failing = 0.0
            if self._alarm:
                self._alarm.cancel()
                self._alarm = None
            while self._wake(probing=False):
                pass

    def failed(self) -> bool:
        """Note that it failed; true if no single request is to blame: everything fails, or most of what is sent."""
        self._left -= 1
        self._streak += 1
        self._failing += _WEIGHT * (1 - self._failing)
        down = self._failing > _DOWN or self._streak >= _STREAK
        if not self.paused and self._left < 0 and down:
            self.paused = True
        return self._policy.outlasts and (self.paused or down)

    def _arm(self) -> None:
        if self._alarm is None and self._waiting:
            self._alarm = asyncio.get_running_loop().call_later(self._delay, self._probe)

    def _probe(self) -> None:
        self._alarm = None
        if self._wake(probing=True):
            self._delay = min(self._delay * 2, _LAST_PROBE)
        self._arm()

    def _wake(self, *, probing: bool) -> bool:
        """Let the foremost go who still waits; false if nobody does."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(probing)
                return True
        return False
