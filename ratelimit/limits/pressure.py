"""What to do about a bucket that the server sees emptier than we do: somebody else, or another way of counting.

**Another program on the key.** Drift shows what it took, but only as late as replies are. At saturation our level
stands at the reserve, so whatever it takes between two replies has to fit in there or one of us is refused. So two
things follow the drift: `share`, the part of the refill that is ours, falls to what recurring drift leaves and creeps
back when the drift ends; `reserve` grows with what was taken unseen and with each refusal, and shrinks again in calm. A
reserve costs nothing lasting: it is a credit held back, not a rate. Alone, the share is 1 and the reserve the slack.

**How far apart ways are.** The slack is for what a server loses that we have counted: while its bucket is full nothing
comes back to it, though our first requests have left. Once much is missing that is over, and no way, however long, does
any harm: who comes later finds more. So what need be kept back then is the longest of the ways that requests had while
the server's bucket may have been full, which their replies tell: at most the time until the reply, less what the server
says it has worked. It is the slack again when the bucket is, and for good after a refusal or a sign of somebody else.

**Another way of counting.** A refusal while the server's own numbers claim room, or while no continuous refill
explains them, means that it counts in slices, minutes or seconds: it grants the published limit in any of them and no
burst on top of it. The lane then leaves evenly, without saving up, and never more within a slice and the spread of
arrivals than one slice may hold (`slices.py`). A diagnosis can be wrong, so after a long calm it is put to the test.
"""

from __future__ import annotations

import math
from collections import deque

from ratelimit.limits.bucket import MINUTE, Bucket
from ratelimit.limits.drift import Change
from ratelimit.limits.quota import Hold, Quota
from ratelimit.limits.slices import Slices

_PERIOD = 5.0  # seconds between two looks at the share
_LEAST_SHARE = 0.02
_CREEP = 0.05  # of the rate, regained per look when nothing is taken any more
_MOST_RESERVE = 0.4  # of the limit
_DOUBT = 1800.0  # seconds without a refusal until an even lane tries whether it need be; twice as many each time
_LATE = 0.02  # seconds; a real clock wakes later than asked, and with nothing saved up every millisecond would be lost
_LONGER = 2.0  # times the longest way seen: not each reply is looked at
_LEAST_SLACK = 0.1  # of the slack, always kept back
_CALM = 120.0  # seconds without a sign of anybody else until the reserve is halved


class Pressure:
    """What is known of others who drain one bucket."""

    __slots__ = (
        "_doubt",
        "_evened_at",
        "_foreign",
        "_looked_at",
        "_peak",
        "_strained",
        "_way",
        "_ways_from",
        "bucket",
        "cooled_at",
        "heard",
        "synced",
        "top",
        "troubled_at",
    )

    def __init__(self, bucket: Bucket, now: float) -> None:
        self.bucket: Bucket = bucket
        self.synced: bool = False
        # Headers speak of this bucket; those of a model with a day's limit are silent on its minute.
        self.heard: bool = False
        self.top: float = 1.0  # the largest share this lane will have
        self.cooled_at: float = -math.inf
        self.troubled_at: float = now
        self._looked_at = now
        self._doubt = _DOUBT
        self._evened_at = now  # when a refusal last said how to leave evenly
        self._peak = 0.0  # the most that was taken unseen between two looks, fading
        self._strained = False  # somebody was refused
        self._way: float | None = None  # the longest of those who left while the server's may have been full
        self._ways_from = 0
        self._foreign: deque[tuple[float, float]] = deque()  # what others took, and when we knew

    @property
    def even(self) -> bool:
        """Whether the lane leaves evenly."""
        return self.bucket.slices is not None

    def drifted(self, amount: float, now: float) -> None:
        """Count what somebody else took (above zero) or turned out not to have taken."""
        if not self.synced:
            self.synced = True  # the first reply tells of the past: what was spent before we came
        elif amount:
            self._foreign.append((now, amount))

    def ease(self, quota: Quota, hold: Hold, way: float, now: float) -> None:
        """Keep no more back than ways can have cost, when they are known and can cost no more."""
        if self._strained or self.even:
            return
        bucket = self.bucket
        if bucket in quota.eased:
            if self._taken() > bucket.reserve:
                self.strain(quota, hold, now)
            return
        if bucket.brim_from != self._ways_from:
            self._ways_from, self._way = bucket.brim_from, None
        if hold.number <= bucket.brim_last:
            if hold.number >= bucket.brim_from:
                self._way = max(self._way or 0, way)
            return
        if self._way is None or bucket.share < 1:
            return
        reserve = max(self._way * _LONGER, quota.slack * _LEAST_SLACK) * bucket.limit.rate
        if reserve < bucket.reserve == quota.least_reserve(bucket.limit) and self._taken() <= reserve:
            quota.ease(bucket, reserve, now)

    def strain(self, quota: Quota, hold: Hold, now: float) -> None:
        """Keep back the whole slack from now on: somebody was refused, or somebody else is there."""
        self._strained = True
        quota.tighten(self.bucket, hold.number, now)

    def acquit(self, amount: float, quota: Quota, now: float) -> None:
        """Take back that somebody else took so much: it was one of those with whom we share."""
        while amount > 0 and self._foreign:
            at, taken = self._foreign.pop()
            if taken > amount:
                self._foreign.append((at, taken - amount))
            amount -= max(taken, 0)
        if not self._foreign:
            self._peak = 0.0
            self._keep(quota.kept_back(self.bucket), now)

    def look(self, quota: Quota, now: float) -> list[Change]:
        """Adapt share and reserve to the last minute; does nothing most of the time."""
        elapsed = now - self._looked_at
        if elapsed < _PERIOD:
            return []
        if self.even and now - self._evened_at >= self._doubt:
            return self._trust(now)
        bucket, rate = self.bucket, self.bucket.limit.rate
        self._peak = max(sum(amount for at, amount in self._foreign if at > self._looked_at), self._peak)
        self._looked_at = now
        left = (self.top - bucket.share) * rate * min(elapsed, MINUTE)
        if left > 0 and self.heard and not self.even:  # with nothing to see, what is left to others is not known used
            self._foreign.append((now, left))
        while self._foreign and self._foreign[0][0] <= now - MINUTE:
            self._foreign.popleft()
        if not self._foreign and bucket.share == self.top and now - self.troubled_at < _CALM:
            return []
        taken = max(self._taken(), 0) / (rate * MINUTE)
        target = min(max(self.top - taken, _LEAST_SHARE), bucket.share + _CREEP, self.top)
        changes = self._reshare(target, now) if abs(target - bucket.share) > _CREEP / 2 or target == self.top else []
        return changes + self._relax(quota, now)

    def hit(self, unseen: float, now: float, *, blind: bool) -> list[Change]:
        """React to a refusal that others must have caused; `unseen` is what they took that we had not known."""
        self.troubled_at = now
        bucket, limit = self.bucket, self.bucket.limit
        before = bucket.reserve
        changes = self._keep(max(before * 1.5, before + 0.04 * limit.rate * MINUTE, before + unseen), now)
        if blind:  # no header will ever tell how much: feel the way down
            self._foreign.append((now, 0.1 * bucket.share * limit.rate * MINUTE))
            changes += self._reshare(max(bucket.share * 0.9, _LEAST_SHARE), now)
        return changes

    def adopt(self, top: float, slices: Slices | None) -> None:
        """Go by what another program on the same shared limits has found of how the server counts."""
        self.synced, self.top, self.bucket.slices = True, top, slices

    def flatten(self, length: float, now: float) -> list[Change]:
        """Leave evenly from now on: the server counts in slices of so many seconds."""
        bucket = self.bucket
        before, bucket.slices = bucket.burst, Slices(length)
        self._evened_at = self.troubled_at = now
        self._foreign.clear()  # what looked like somebody else was the slice
        bucket.retune(now, burst=_LATE * bucket.limit.rate)
        return [Change("burst", bucket.limit.name, before, bucket.burst), *self._thin(now)]

    def widen(self, hold: Hold, now: float) -> list[Change]:
        """Leave less densely: even as we left, a slice was overfull. Not if part of it left before we knew better."""
        slices = self.bucket.slices
        if slices is None or hold.sent_at is None or hold.sent_at < self._evened_at + slices.span:
            return []
        self._evened_at = self.troubled_at = now
        slices.widen()
        return self._thin(now)

    def _thin(self, now: float) -> list[Change]:
        bucket, slices = self.bucket, self.bucket.slices
        if slices is None:
            return []
        piece = 1 if bucket.limit.unit == "requests" else 0
        self.top = slices.share(bucket.limit.rate * slices.length, piece)
        return self._reshare(self.top, now)

    def _trust(self, now: float) -> list[Change]:
        """Save up again, as far as that is the limit's: whether the server still minds, the next refusal will tell."""
        bucket = self.bucket
        before, bucket.slices, self.top = bucket.burst, None, 1.0
        self._doubt *= 2
        bucket.retune(now, burst=math.inf)
        return [Change("burst", bucket.limit.name, before, bucket.burst), *self._reshare(self.top, now)]

    def _taken(self) -> float:
        """Return what others have taken in the last minute, as far as is known."""
        return sum(amount for _, amount in self._foreign)

    def _reshare(self, share: float, now: float) -> list[Change]:
        before = self.bucket.share
        if share == before:
            return []
        self.bucket.retune(now, share=share)
        return [Change("share", self.bucket.limit.name, before, share)]

    def _keep(self, reserve: float, now: float) -> list[Change]:
        bucket, before = self.bucket, self.bucket.reserve
        reserve = min(reserve, max(_MOST_RESERVE * bucket.limit.amount, before))
        if reserve == before:
            return []
        bucket.retune(now, reserve=reserve)
        return [Change("reserve", bucket.limit.name, before, reserve)]

    def _relax(self, quota: Quota, now: float) -> list[Change]:
        bucket = self.bucket
        least = max(quota.kept_back(bucket), self._peak)
        if bucket.reserve < least * 0.9:
            return self._keep(least, now)
        if now - self.troubled_at < _CALM:
            return []
        self.troubled_at = now
        self._peak /= 2
        return self._keep(max(bucket.reserve / 2, least), now) if bucket.reserve > least else []
