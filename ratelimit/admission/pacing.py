"""Spreads what a lane may send at once over a little while.

A full bucket would let a minute's worth of requests go in one instant: no network likes that, and should somebody else
be using the key, all that are on the way when the bucket runs dry are refused together. So between a grant and the
next stands a limiter. It lets a full lane open at `pace` times its sustained rate, and slows as the bucket empties,
down to just above the sustained rate; it never decides *whether* a request may go, only that not all go at once.

A real clock wakes a millisecond late, and more on a busy machine. So the limiter lets a few leave together, as many as
are due in a few milliseconds: spaced one by one, fast lanes would lose every one of those milliseconds.

aiolimiter does this and no more: it knows one limit, gives nothing back, and lets a small amount pass a large one, so
it is asked for one at a time, by the dispatcher or by a caller whom nobody is ahead of.
"""

from __future__ import annotations

from math import ceil

from aiolimiter import AsyncLimiter

from ratelimit.limits.bucket import MINUTE
from ratelimit.limits.quota import Cost, Quota

_BANDS = ((0.3, 1.0), (0.1, 0.4))  # above this fullness, this much of the pace
_LEAST = 1.5  # times the sustained rate; less would waste what is saved up, more would empty it in a volley
_MEMORY = 16  # requests over which the usual cost of one is averaged
_NEAR = 1.25  # rates closer than this are the same
_VOLLEY = 0.01  # seconds; what is due within it may leave together
_FRESH = 0.05  # seconds for which a rate stands; no band is crossed faster at a pace of 10


class Pacer:
    """The spacing of one lane's sends."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._usual: dict[str, float] = {}
        self._rate = 0.0
        self._limiter: AsyncLimiter | None = None
        self._fresh_until = -1.0

    def ready(self, quota: Quota, cost: Cost, now: float) -> bool:
        """Take note of a request that may soon leave; return whether it may at once, so that `wait` would not."""
        usual = self._usual
        for unit, amount in cost.items():
            known = usual.get(unit, amount)
            usual[unit] = known + (amount - known) / _MEMORY
        if now >= self._fresh_until:
            self._fresh_until = now + _FRESH
            rate = self._wanted(quota, now)
            if rate > self._rate * _NEAR or rate * _NEAR < self._rate:
                self._rate = rate
                volley = max(ceil(rate * _VOLLEY), 1)
                self._limiter = AsyncLimiter(volley, volley / rate) if rate else None
        return self._limiter is None or self._limiter.has_capacity()

    async def wait(self) -> None:
        """Wait until the request that was just noted may leave."""
        if self._limiter is not None:
            await self._limiter.acquire()

    def _wanted(self, quota: Quota, now: float) -> float:
        """Return requests per second; zero for no pacing."""
        slowest = 0.0
        fullness = 1.0
        for bucket in quota.buckets:
            usual = self._usual.get(bucket.limit.unit, 0)
            if usual and bucket.limit.window <= MINUTE:
                if bucket.burst < bucket.limit.rate:
                    return 0.0  # a lane that saves nothing up is spaced by its bucket; more would lose its time
                fullness = min(fullness, bucket.level(now) / bucket.ceiling if bucket.ceiling else 0)
                rate = 1 / (bucket.interval * usual)
                slowest = min(slowest, rate) if slowest else rate
        return slowest * max(_LEAST, next((self._pace * part for least, part in _BANDS if fullness > least), _LEAST))
