"""What to do about a bucket that the server sees emptier than we do: somebody else, or another way of counting.

**Another program on the key.** Drift shows what it took, but only as late as replies are. At saturation our level
stands at the reserve, so whatever it takes between two replies has to fit in there or one of us is refused. So two
things follow the drift: `share`, the part of the refill that is ours, falls to what recurring drift leaves and creeps
back when the drift ends; `reserve` grows with what was taken unseen and with each refusal, and shrinks again in calm. A
reserve costs nothing lasting: it is a credit held back, not a rate. Alone, the share is 1 and the reserve the slack.

**Another way of counting.** A refusal while the server's own numbers claim room, or while no continuous refill
explains them, means that it counts in slices, minutes or seconds: it grants the published limit in any of them and no
burst on top of it. The lane then leaves evenly, without saving up, and never more within a slice and the spread of
arrivals than one slice may hold (`slices.py`). A diagnosis can be wrong, so after a long calm it is put to the test.
"""

from __future__ import annotations

import math
from collections import deque

from ratelimit.limits.bucket import MINUTE, Bucket, Limit
from ratelimit.limits.drift import Change, match, proves, refused_missing
from ratelimit.limits.drift import missing as missing_of
from ratelimit.limits.headers import Observed, Reading, Refusal
from ratelimit.limits.quota import Cost, Hold, Quota
from ratelimit.limits.slices import Slices

_PERIOD = 5.0  # seconds between two looks at the share
_LEAST_SHARE = 0.02
_CREEP = 0.05  # of the rate, regained per look when nothing is taken any more
_MOST_RESERVE = 0.4  # of the limit
_DOUBT = 1800.0  # seconds without a refusal until an even lane tries whether it need be; twice as many each time
_SECOND = 1.0  # the shortest slice anybody was seen to count in
_LATE = 0.02  # seconds; a real clock wakes later than asked, and with nothing saved up every millisecond would be lost
_CALM = 120.0  # seconds without a sign of anybody else until the reserve is halved


class Pressure:
    """What is known of others who drain one bucket."""

    __slots__ = (
        "_doubt",
        "_evened_at",
        "_foreign",
        "_looked_at",
        "_peak",
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

    def acquit(self, amount: float, quota: Quota, now: float) -> None:
        """Take back that somebody else took so much: it was one of those with whom we share."""
        while amount > 0 and self._foreign:
            at, taken = self._foreign.pop()
            if taken > amount:
                self._foreign.append((at, taken - amount))
            amount -= max(taken, 0)
        if not self._foreign:
            self._peak = 0.0
            self._keep(quota.least_reserve(self.bucket.limit), now)

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
        taken = max(sum(amount for _, amount in self._foreign), 0) / (rate * MINUTE)
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
        least = max(quota.least_reserve(bucket.limit), self._peak)
        if bucket.reserve < least * 0.9:
            return self._keep(least, now)
        if now - self.troubled_at < _CALM:
            return []
        self.troubled_at = now
        self._peak /= 2
        return self._keep(max(bucket.reserve / 2, least), now) if bucket.reserve > least else []


class Feedback:
    """Everything replies teach about one lane's quota."""

    def __init__(self, quota: Quota, now: float) -> None:
        self.quota = quota
        self._pressures: dict[Bucket, Pressure] = {bucket: Pressure(bucket, now) for bucket in quota.buckets}

    def observe(self, hold: Hold, observed: Observed, now: float) -> list[Change]:
        """Learn from the headers of a reply that was not refused."""
        changes: list[Change] = []
        for reading in _credible(observed, hold):
            bucket, changed = match(self.quota, reading, now)
            changes += changed
            if bucket is None:
                continue
            pressure = self.of(bucket, now)
            if pressure.even or (pressure.synced and reading.is_linear(bucket.limit.window) is False):
                continue  # its numbers are about windows, and say nothing of a level
            theirs = missing_of(reading, bucket.limit)
            if theirs is None:
                continue
            wrong = proves(self.quota, hold, bucket, theirs, now)
            pressure.heard = True
            pressure.drifted(wrong, now)
            if wrong:
                bucket.shift(wrong, now)
                changes.append(Change("drift", bucket.limit.name, 0, wrong))
        for bucket in self.quota.buckets:
            changes += self.of(bucket, now).look(self.quota, now)
        return changes

    def refused(self, hold: Hold, observed: Observed, now: float, *, most: float) -> list[Change]:
        """Learn from a refusal: close what it names for as long as it tells, `most` at the most."""
        changes: list[Change] = []
        readings: dict[Bucket, Reading] = {}
        for reading in _credible(observed, hold):
            bucket, changed = match(self.quota, reading, now)
            changes += changed
            if bucket is not None:
                readings[bucket] = reading
        named, changed = self._named(hold, observed, readings, now)
        changes += changed
        if observed.refusal and observed.refusal.kind == "too large":
            return changes  # nobody's doing: it would never have passed
        for bucket in named or self.quota.buckets:
            pressure = self.of(bucket, now)
            if hold.sent_at is not None and hold.sent_at <= pressure.cooled_at:
                continue  # it left before the lane was closed: the same wave
            pressure.cooled_at = now
            changes += _close(bucket, observed, now, most)
            if named:
                changes += self._blame(bucket, hold, observed, readings.get(bucket), now)
        return changes

    def of(self, bucket: Bucket, now: float) -> Pressure:
        """Return what is known of others who drain a bucket."""
        if bucket not in self._pressures:
            self._pressures[bucket] = Pressure(bucket, now)
        return self._pressures[bucket]

    def cool(self, until: float) -> None:
        """Close the whole lane until then."""
        for bucket in self.quota.buckets:
            bucket.closed_until = max(bucket.closed_until, until)

    def _named(
        self, hold: Hold, observed: Observed, readings: dict[Bucket, Reading], now: float
    ) -> tuple[list[Bucket], list[Change]]:
        """Return the buckets that have refused, as far as is known."""
        buckets = self.quota.buckets
        if refusal := observed.refusal:
            return self._told(refusal, now)
        short = [
            bucket
            for bucket, reading in readings.items()
            if reading.remaining is not None and reading.remaining < hold.cost.get(bucket.limit.unit, 0)
        ]
        return short or [bucket for bucket in buckets if self._beyond(bucket, hold, now)], []

    def _told(self, refusal: Refusal, now: float) -> tuple[list[Bucket], list[Change]]:
        """Return the buckets that a message speaks of, made to fit its limit."""
        quota, amount = self.quota, refusal.limit
        window = refusal.implied_window() or refusal.window  # the label has been seen to lie
        named = [b for b in quota.buckets if (b.limit.unit, b.limit.window) == (refusal.unit, window)]
        if amount <= 0:  # "Limit 0": not for this account at all, which no waiting changes
            return named, []
        if not named and refusal.unit in {"requests", "tokens"}:
            bucket = quota.add(Limit(refusal.unit, amount, window), now)
            return [bucket], [Change("added", bucket.limit.name, 0, amount)]
        if len(named) != 1:
            return [b for b in named if b.limit.amount == amount] or named, []
        before = named[0].limit
        if before.amount == amount or (before.own and amount > before.amount):
            return named, []
        quota.retune(named[0], amount, now)
        return named, [Change("retuned", before.name, before.amount, amount)]

    def _blame(
        self, bucket: Bucket, hold: Hold, observed: Observed, reading: Reading | None, now: float
    ) -> list[Change]:
        pressure, quota = self.of(bucket, now), self.quota
        theirs = refused_missing(observed, reading, bucket)
        if pressure.even:
            return pressure.widen(hold, now)
        if _claims_room(observed, reading, bucket, hold.cost):
            return pressure.flatten(_SECOND, now)
        if theirs is not None and _is_linear(observed, reading, bucket):
            unseen = proves(quota, hold, bucket, theirs, now, refused=True)
            first = not pressure.synced
            pressure.drifted(unseen, now)
            if not unseen:
                return pressure.hit(0, now, blind=False)
            bucket.shift(unseen, now)
            drift = Change("drift", bucket.limit.name, 0, unseen)
            # What the first reply tells of was spent before we came, by whomever.
            return [drift] if first else [drift, *pressure.hit(max(unseen, 0), now, blind=False)]
        if length := self._beyond(bucket, hold, now):
            told = _told_wait(observed)  # nobody is sent away for longer than the slice takes
            return pressure.flatten(length if told is None or told <= 2 * length else bucket.limit.window, now)
        return pressure.hit(0, now, blind=True)

    def _beyond(self, bucket: Bucket, hold: Hold, now: float) -> float | None:
        """Return the slice of which we ourselves had sent more than a server that counts in such would let pass."""
        if bucket.limit.window > MINUTE or hold.sent_at is None:
            return None
        meter, unit, limit = self.quota.meter, bucket.limit.unit, bucket.limit
        if meter.between(unit, hold.sent_at - limit.window - self.quota.slack, now) > 0.97 * limit.amount:
            return limit.window
        return _SECOND if meter.between(unit, hold.sent_at - _SECOND, hold.sent_at) > limit.rate * _SECOND else None


def _credible(observed: Observed, hold: Hold) -> list[Reading]:
    """Leave out a limit that this very request would not have fitted into.

    It was let in, or its refusal says "too large". A lane that believed such a header could never send again what
    would show it to be wrong.
    """
    return [reading for reading in observed.readings if not 0 < (reading.limit or 0) < hold.cost.get(reading.unit, 0)]


def _close(bucket: Bucket, observed: Observed, now: float, most: float) -> list[Change]:
    told = _told_wait(observed)
    wait = min(max(1.0 if told is None else told, 0), most)
    if now + wait <= max(bucket.closed_until, now):
        return []
    bucket.closed_until = now + wait
    return [Change("cooled", bucket.limit.name, 0, wait)]


def _told_wait(observed: Observed) -> float | None:
    if observed.retry_after is None and observed.refusal:
        return observed.refusal.wait
    return observed.retry_after


def _claims_room(observed: Observed, reading: Reading | None, bucket: Bucket, cost: Cost) -> bool:
    amount = cost.get(bucket.limit.unit, 0)
    if (refusal := observed.refusal) and refusal.used is not None:
        return refusal.used + refusal.requested <= refusal.limit
    return reading is not None and reading.remaining is not None and reading.remaining >= amount


def _is_linear(observed: Observed, reading: Reading | None, bucket: Bucket) -> bool:
    """Whether the server's numbers are those of a bucket that refills continuously."""
    refusal = observed.refusal
    if refusal and refusal.wait is not None and refusal.used is not None and refusal.limit > 0:
        expected = (refusal.used + refusal.requested - refusal.limit) * bucket.limit.window / refusal.limit
        return abs(refusal.wait - expected) <= bucket.limit.window / refusal.limit + 0.001
    return reading is not None and reading.is_linear(bucket.limit.window) is True
