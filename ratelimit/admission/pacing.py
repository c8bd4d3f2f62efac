"""Spreads what a lane may send at once over a little while.

A full bucket would let a minute's worth of requests go in one instant: no network likes that, and should somebody else
be using the key, all that are on the way when the bucket runs dry are refused together. So between a grant and the
next stands a limiter. It lets a full lane open at `pace` times its sustained rate, and slows as the bucket empties,
down to just above the sustained rate; it never decides *whether* a request may go, only that not all go at once.

A real clock wakes a millisecond late, and more on a busy machine. So it lets a volley leave together, as many as are
due in a few milliseconds: fast lanes would lose every one of those milliseconds otherwise.

aiolimiter does this and no more: it knows one limit, gives nothing back, and lets a small amount pass a large one, so
it is asked for one request at a time, by the dispatcher or by a caller whom nobody is ahead of.
"""

from __future__ import annotations

from math import ceil, inf

from aiolimiter import AsyncLimiter

from ratelimit.limits.bucket import MINUTE
from ratelimit.limits.quota import Cost, Quota

_BANDS = ((0.3, 1.0), (0.1, 0.25))  # above this fullness, this much of the pace
_LEAST = 1.5  # times the sustained rate; less would waste what is saved up, more would empty it in a volley
_MEMORY = 16  # requests over which the usual cost of one is averaged
_NEAR = 1.25  # rates closer than this are the same
_VOLLEY = 0.01  # seconds; what is due within it may leave together
_EASY = 250.0  # requests a second that are no burst to anybody, whatever the limits sustain
_FRESH = 0.05  # seconds for which a rate stands; no band is crossed faster at a pace of 10


class Pacer:
    """The spacing of one lane's sends."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._usual: dict[str, float] = {}
        self._rate = 0.0
        self._limiter: AsyncLimiter | None = None
        self._volley = 1
        self._cleared = False  # one has been let through that has not left yet
        self._used_up = False
        self._left_at = -inf
        self._fresh_until = -inf
        self._open = False

    def ready(self, quota: Quota, cost: Cost, now: float) -> bool:
        """Return whether a request may leave now as far as pacing goes, so that `wait` would not."""
        if self._used_up and now >= self._left_at + 1 / self._rate:
            self._used_up = False
        if now < self._fresh_until and self._has_room():
            return True
        self._fresh_until = now + _FRESH
        rate = self._rate_now(quota, cost, now)
        if rate > self._rate * _NEAR or rate * _NEAR < self._rate:
            self._rate = rate
            self._volley = max(ceil(rate * _VOLLEY), 1)
            self._limiter = AsyncLimiter(self._volley, self._volley / rate) if rate else None
            self._used_up = self._limiter is not None and now < self._left_at + 1 / rate
        return self._has_room()

    async def wait(self) -> None:
        """Wait until a request may leave; it need not."""
        if (limiter := self._limiter) is not None:
            if self._used_up:  # a limiter starts with a volley to spend, which the one before it has spent
                self._used_up = False
                await limiter.acquire(self._volley)
            if not self._cleared:
                await limiter.acquire()
                self._cleared = True

    def spend(self, cost: Cost, now: float) -> None:
        """Count a request that leaves now."""
        self._cleared = False
        self._left_at = now
        usual = self._usual
        for unit, amount in cost.items():
            known = usual.get(unit, amount)
            usual[unit] = known + (amount - known) / _MEMORY

    def _has_room(self) -> bool:
        limiter = self._limiter
        return limiter is None or self._cleared or (not self._used_up and limiter.has_capacity())

    def gap(self, quota: Quota, cost: Cost) -> float:
        """Return the seconds between two requests of a lane that goes as slowly as it may."""
        rate = self._sustained(quota, cost)
        return 1 / (rate * _LEAST) if rate else 0.0

    def _sustained(self, quota: Quota, cost: Cost) -> float:
        """Return how many usual requests a second the limits sustain; zero for no need to pace."""
        slowest = 0.0
        for bucket in quota.buckets:
            unit = bucket.limit.unit
            own = cost.get(unit, 0)
            usual = min(self._usual.get(unit, own), own)  # a large one before it is no reason for this one to linger
            if usual and bucket.limit.window <= MINUTE:
                if bucket.burst < bucket.limit.rate:
                    return 0.0  # a lane that saves nothing up is spaced by its bucket; more would lose its time
                rate = 1 / (bucket.interval * usual)
                slowest = min(slowest, rate) if slowest else rate
        return slowest

    def _rate_now(self, quota: Quota, cost: Cost, now: float) -> float:
        """Return how many requests a second may leave, by the emptiest of the buckets."""
        sustained = self._sustained(quota, cost)
        brief = (bucket for bucket in quota.buckets if bucket.limit.window <= MINUTE)
        fullness = min((bucket.level(now) / bucket.ceiling if bucket.ceiling else 0 for bucket in brief), default=1.0)
        rate = sustained * max(_LEAST, next((self._pace * part for least, part in _BANDS if fullness > least), _LEAST))
        if rate and self._open and fullness > _BANDS[0][0]:
            return max(rate, _EASY)
        return rate

    def open(self) -> None:
        """Go as fast as is easy on sockets where buckets are full: the server has shown what it is."""
        self._open = True
        self._fresh_until = -inf
