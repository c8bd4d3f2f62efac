"""What replies teach about one lane's quota: how its buckets stand, who else drains them, and how the server counts.

**What one reply may do.** A reply is a claim, and the next one may say otherwise; but a lane that stands still hears no
next one. So a header alone makes nobody wait for longer than a minute: what is missing beyond that is believed of a
refusal, which has to be got first. And a limit that has become smaller fails no request until a second reply says so.

**When nothing is let in.** A refusal tells of others or of another way of counting only where something was let in
since the last one. Where all that was sent since has been refused, the service refuses everybody: the lane stays closed
for as long as it tells, and is as it was when that ends.
"""

from __future__ import annotations

from ratelimit.limits.bucket import MINUTE, Bucket, Limit
from ratelimit.limits.drift import Change, match, proves, refused_missing, way_of
from ratelimit.limits.drift import missing as missing_of
from ratelimit.limits.headers import Observed, Reading, Refusal
from ratelimit.limits.pressure import Pressure
from ratelimit.limits.quota import Cost, Hold, Quota

_SECOND = 1.0  # the shortest slice anybody was seen to count in
_BELIEVED = 3  # waits in vain until it is known that what is told is not so
_RAREST = 30.0  # seconds between two looks whether a service that refuses everything has ended that


class Feedback:
    """Everything replies teach about one lane's quota."""

    def __init__(self, quota: Quota, now: float) -> None:
        self.quota = quota
        self._pressures: dict[Bucket, Pressure] = {bucket: Pressure(bucket, now) for bucket in quota.buckets}
        self._looked_into: int | None = None  # the hold of the last refusal that was more than one of a wave
        self._since = 0  # refusals of later holds
        self._in_vain = 0  # waits in a row after which nothing was let in

    def observe(self, hold: Hold, observed: Observed, now: float) -> list[Change]:
        """Learn from the headers of a reply that was not refused."""
        changes: list[Change] = []
        long = [(bucket, _ready_at(bucket, hold, now)) for bucket in self.quota.buckets if bucket.limit.window > MINUTE]
        way = way_of(self.quota, hold, observed, now)
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
            wrong = proves(self.quota, hold, bucket, theirs, now, way=way)
            if bucket in self.quota.unsure:
                wrong = max(wrong, 0)  # what is missing from a limit that may not be so is no reason to give back
            pressure.heard = True
            pressure.drifted(wrong, now)
            if wrong:
                bucket.shift(wrong, now)
                changes.append(Change("drift", bucket.limit.name, 0, wrong))
            if reading.is_linear(bucket.limit.window):
                pressure.ease(self.quota, hold, way, now)
        for bucket in self.quota.buckets:
            changes += self.of(bucket, now).look(self.quota, now)
            if bucket.limit.window > MINUTE:
                _bear(bucket, hold, max(dict(long).get(bucket, now), now + MINUTE), now)
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
        if self._looked_into is not None and hold.number > self._looked_into:
            self._since += 1
        if observed.refusal and observed.refusal.kind == "too large":
            return changes  # nobody's doing: it would never have passed
        news, refuses_all = False, self._nothing_is_let_in(hold)
        least = min(2.0 ** (self._in_vain - _BELIEVED), _RAREST) if refuses_all and self._in_vain >= _BELIEVED else 0.0
        for bucket in named or self.quota.buckets:
            pressure = self.of(bucket, now)
            if hold.sent_at is not None and hold.sent_at <= pressure.cooled_at:
                continue  # it left before the lane was closed: the same wave
            news = True
            pressure.cooled_at = now
            pressure.strain(self.quota, hold, now)
            changes += _close(bucket, observed, now, most, least)
            if refuses_all:
                changes += self._wait(bucket, hold, observed, readings.get(bucket), now)
            elif named:
                changes += self._blame(bucket, hold, observed, readings.get(bucket), now)
        if news:
            self._looked_into, self._since = hold.number, 0
            self._in_vain = self._in_vain + 1 if refuses_all else 0
        return changes

    def _nothing_is_let_in(self, hold: Hold) -> bool:
        """Whether all that was sent since the last refusal that was looked into has been refused, as this one is."""
        return self._looked_into is not None and hold.number - self._looked_into <= self._since

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

    def _wait(
        self, bucket: Bucket, hold: Hold, observed: Observed, reading: Reading | None, now: float
    ) -> list[Change]:
        """Believe the numbers of one that refuses everything, and let one request go first when the wait is over."""
        theirs, unseen = refused_missing(observed, reading, bucket), 0.0
        if theirs is not None and _is_linear(observed, reading, bucket):
            unseen = proves(self.quota, hold, bucket, theirs, now, refused=True)
            bucket.shift(unseen, now)
        if bucket.limit.window <= MINUTE:
            spare = (bucket.closed_until - _ready_at(bucket, hold, now)) / bucket.interval
            bucket.shift(max(spare, 0), now)
        return [Change("drift", bucket.limit.name, 0, unseen)] if unseen else []

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


def _close(bucket: Bucket, observed: Observed, now: float, most: float, least: float) -> list[Change]:
    told = _told_wait(observed)
    wait = min(max(1.0 if told is None else told, least), most)
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
    """Whether the server's numbers are those of a bucket that refills continuously.

    Its counters are whole, so the wait may differ by what one takes to come back; but however empty, no such bucket
    keeps anybody longer than what was asked takes to come back, and where more was used than there is, what is owed.
    """
    refusal = observed.refusal
    if refusal and refusal.wait is not None and refusal.used is not None and refusal.limit > 0:
        one = bucket.limit.window / refusal.limit
        excess = refusal.used + refusal.requested - refusal.limit
        most = max(excess, refusal.requested) * one
        return abs(refusal.wait - excess * one) <= one + 0.001 and refusal.wait <= most + 0.001
    return reading is not None and reading.is_linear(bucket.limit.window) is True


def _ready_at(bucket: Bucket, hold: Hold, now: float) -> float:
    """Return when another like this one may go."""
    return max(bucket.full_at, now) + hold.cost.get(bucket.limit.unit, 0) * bucket.interval - bucket.depth


def _bear(bucket: Bucket, hold: Hold, latest: float, now: float) -> None:
    """Let another like this one go by then, whatever a reply has claimed."""
    over = (_ready_at(bucket, hold, now) - latest) / bucket.interval
    if over > 0:
        bucket.shift(-over, now)
