"""Asking again: how long to wait, when to stop, and how much asking again a job can afford.

The first attempt runs bare; tenacity comes in with the first failure. Each attempt takes a new turn, so retries are
paid for like anything else. Refusals by a limit use up no attempts and add no wait here: the lane is closed for as long
as the service told, and the retry stands in it at its old place.

Retries are a share of what succeeds, over all requests. When that is spent and most attempts fail, the service is down:
sending pauses, and one request at a time goes out to see, less and less often, until one succeeds. Attempts made in an
outage count against nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from tenacity.wait import wait_base

from ratelimit.errors import NotAnswered, RateLimitError
from ratelimit.wire.judge import Verdict

T = TypeVar("T")

_RAREST = 30.0  # seconds between two looks whether the service is back


@dataclass(frozen=True, slots=True)
class Policy:
    """How persistently to ask again."""

    attempts: int = 6
    first_wait: float = 0.5
    longest_wait: float = 60.0
    share: float = 0.2  # retries per success that a job can afford
    reserve: float = 20  # retries that are free, so that small jobs retry too


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


class WaitAsTold(wait_base):
    """The service's own wait if it told one, else exponential with full jitter; nothing where the lane waits."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._otherwise = wait_random_exponential(multiplier=policy.first_wait, max=policy.longest_wait)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait before the next attempt."""
        failure = retry_state.outcome.exception() if retry_state.outcome else None
        if not isinstance(failure, Again):
            return 0
        if failure.verdict.limited or failure.verdict.slowed:
            return 0
        if failure.verdict.after is not None:
            return min(max(failure.verdict.after, 0), self._policy.longest_wait)
        return self._otherwise(retry_state)


async def persist(attempt: Callable[[], Awaitable[T]], policy: Policy) -> T:
    """Run an attempt until it succeeds, raises something final, or has used up its attempts."""
    try:
        return await attempt()
    except Again as failure:
        first: Again | None = failure
    counted = 0

    def stop(state: RetryCallState) -> bool:
        nonlocal counted
        failure = state.outcome.exception() if state.outcome else None
        counted += isinstance(failure, Again) and failure.counts
        return counted >= policy.attempts

    try:
        async for trial in AsyncRetrying(
            stop=stop, wait=WaitAsTold(policy), retry=retry_if_exception_type(Again), sleep=asyncio.sleep, reraise=True
        ):
            with trial:
                if first is not None:
                    failed, first = first, None
                    raise failed
                return await attempt()
    except Again as last:
        raise last.error from None
    raise AssertionError("tenacity ended without an outcome")


class Outage:
    """Whether the service is there at all; where it is not, the one place that waits for it to come back."""

    def __init__(self, policy: Policy) -> None:
        self.paused = False
        self._policy = policy
        self._left = policy.reserve
        self._failing = 0.0  # share of the last twenty or so attempts
        self._delay = 1.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def passed(self) -> None:
        """Wait until the service may be asked."""
        if not self.paused:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._alarm is None:
            self._arm()
        await waiter

    def succeeded(self) -> None:
        """Note that the service answers."""
        self._left = min(self._left + self._policy.share, self._policy.reserve * 50)
        self._failing *= 0.95
        if self.paused:
            self.paused = False
            self._delay = 1.0
            self._left = max(self._left, self._policy.reserve)
            self._failing = 0.0
            if self._alarm:
                self._alarm.cancel()
                self._alarm = None
            while self._waiting:
                self._wake()

    def failed(self) -> bool:
        """Note that it failed; true if this is an outage, which no single request is to blame for."""
        self._left -= 1
        self._failing += 0.05 * (1 - self._failing)
        if not self.paused and self._left < 0 and self._failing > 0.5:
            self.paused = True
        return self.paused

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(self._delay, self._probe)

    def _probe(self) -> None:
        self._alarm = None
        self._wake()
        self._delay = min(self._delay * 2, _RAREST)  # by probes sent, not by failures: those on the way fail in a crowd
        if self._waiting:
            self._arm()

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
