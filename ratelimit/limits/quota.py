"""All buckets of one lane, taken from together or not at all.

A request costs something of several limits at once. First every bucket is asked, then every bucket is taken from; a
refusal changes nothing and says when to ask again. What was taken comes back as a `Hold`, which is ended exactly once,
by what has become of the request. "Not yet" is an answer; "never" is an error, raised before anybody waits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ratelimit.errors import AlreadySettled, NeverFits
from ratelimit.limits.bucket import MINUTE, Bucket, Limit
from ratelimit.limits.meter import Meter

Cost = Mapping[str, float]
"""What one request takes, by unit: `{"requests": 1, "tokens": 800}`; numbers of zero or more."""

UNSENT: Cost = {}
"""What a request has cost that never left."""

_UNITS = ("requests", "tokens")  # whose sums are kept
_REMEMBERED = 4096  # settlements; an older one no longer matters to any reply still to come


class Lows:
    """The least that was missing from a bucket since a request left; what has refilled since is not there to return.

    Only what can still be the least is kept, so it ascends: one look at the front answers. Asked for in the order of
    sends, and what lies before the last question is forgotten.
    """

    __slots__ = ("_lows", "_numbers")

    def __init__(self) -> None:
        self._numbers: deque[int] = deque(maxlen=_REMEMBERED)
        self._lows: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, number: int, missing: float) -> None:
        """Remember how much was missing just before hold `number` left."""
        numbers, lows = self._numbers, self._lows
        while lows and lows[-1] >= missing:
            lows.pop()
            numbers.pop()
        lows.append(missing)
        numbers.append(number)

    def since(self, number: int) -> float:
        """Return the least since hold `number` left."""
        while self._numbers and self._numbers[0] <= number:
            self._numbers.popleft()
            self._lows.popleft()
        return self._lows[0] if self._lows else math.inf


class Hold:
    """A cost that has been taken; ended exactly once."""

    __slots__ = ("cost", "ended", "marks", "number", "sent_at", "settlements")

    def __init__(self, cost: Cost, number: int) -> None:
        self.cost: Cost = cost
        self.number: int = number
        self.sent_at: float | None = None
        self.settlements: int = 0  # how many there had been when it left
        # What had been sent of each unit before; then how each bucket stood when it left, its own cost taken: what was
        # missing, and the sum of all its corrections. All in one row, for the garbage collector looks at each object of
        # each request that is under way.
        self.marks: Sequence[float] = ()
        self.ended: str | None = None

    def __repr__(self) -> str:
        return f"<Hold {self.number}: {dict(self.cost)}, {self.ended or 'open'}>"


class Quota:
    """Several limits as one."""

    def __init__(self, limits: Iterable[Limit], now: float, *, slack: float = 1.0) -> None:
        self.slack = slack
        self.alone: bool = True  # all that we know to be sent on the key is sent from here
        self.buckets: list[Bucket] = []
        self.heard: dict[Bucket, int] = {}  # the newest hold whose reply spoke of the bucket
        self.retuned: int = 0  # times that a limit was found to be another
        self.claimed: dict[tuple[str, str], Limit] = {}  # by unit and scope: what one reply alone has said
        self.unsure: dict[Bucket, float] = {}  # limits that the first word has changed, and what they were before
        self.eased: dict[Bucket, float] = {}  # buckets of which less is kept back than `slack`, and how much that is
        self.elsewhere: dict[Bucket, float] = {}  # what others have taken and may not have sent yet
        self._pairs: list[tuple[str, Bucket]] = []
        self._taken = 0
        self._settlements = 0
        self._settled: dict[str, deque[tuple[int, int, float]]] = {}  # by unit: which settlement, whose, how much
        self._lows: dict[Bucket, Lows] = {}
        self._watched: list[tuple[str, Bucket, Lows]] = []
        for limit in limits:
            self.add(limit, now)
        self.meter: Meter = Meter(_UNITS)

    def add(self, limit: Limit, now: float) -> Bucket:
        """Heed one more limit from now on."""
        bucket = Bucket(limit, now, reserve=self.least_reserve(limit))
        self.buckets.append(bucket)
        self._pairs.append((limit.unit, bucket))
        lows = self._lows[bucket] = Lows()
        self._watched.append((limit.unit, bucket, lows))
        self._settled.setdefault(limit.unit, deque(maxlen=_REMEMBERED))
        return bucket

    def least_reserve(self, limit: Limit) -> float:
        """Return what is always kept back of a limit: what comes back to it in `slack` seconds."""
        return min(self.slack, limit.window / 2) * limit.rate

    def kept_back(self, bucket: Bucket) -> float:
        """Return what is kept back of a bucket when nobody else is known of."""
        return self.eased.get(bucket, self.least_reserve(bucket.limit))

    def ease(self, bucket: Bucket, reserve: float, now: float) -> None:
        """Keep less back for as long as the server's bucket cannot be full."""
        self.eased[bucket] = reserve
        bucket.retune(now, reserve=reserve)

    def tighten(self, bucket: Bucket, number: int, now: float) -> None:
        """Keep the whole slack back again: how hold `number` and those after it travel is not known."""
        if self.eased.pop(bucket, None) is not None:
            bucket.brim_from = number
            bucket.retune(now, reserve=max(bucket.reserve, self.least_reserve(bucket.limit)))

    def retune(self, bucket: Bucket, amount: float, now: float) -> None:
        """Follow a limit that has changed."""
        self.tighten(bucket, self._taken + 1, now)
        extra = max(bucket.reserve - self.least_reserve(bucket.limit), 0) / bucket.limit.amount
        self.retuned += 1
        limit = replace(bucket.limit, amount=amount)
        bucket.retune(now, limit=limit, reserve=self.least_reserve(limit) + extra * amount)

    def start_over(self) -> None:
        """Let no reply to what has been taken so far tell how a bucket stands: another one stands in its place."""
        for bucket in self.buckets:
            self.heard[bucket] = self._taken + 1

    def hears(self, unit: str) -> bool:
        """Whether replies tell what the server took of a unit, so that nothing else need settle it."""
        return any(bucket.limit.unit == unit for bucket in self.heard)

    def reserve(self, cost: Cost, now: float) -> Hold | float:
        """Take `cost` from every bucket, or take nothing and return when to ask again."""
        for unit, bucket in self._pairs:
            amount = cost.get(unit, 0)
            if amount and (
                amount * bucket.interval > bucket.depth  # the short way is for ordinary sizes
                or bucket.full_at + amount * bucket.interval - bucket.depth > now
                or bucket.closed_until > now
                or bucket.slices is not None
            ):
                ready_at = self.ready_at(cost)
                if now < ready_at:
                    return ready_at
                break
        return self.take(cost, now)

    def take(self, cost: Cost, now: float) -> Hold:
        """Take `cost` from every bucket, whatever they hold: somebody else has seen to it that it may go."""
        for unit, bucket in self._pairs:
            amount = cost.get(unit, 0)
            if amount:
                since = bucket.full_at  # a call of max() would cost as much as all the rest
                bucket.full_at = (since if since > now else now) + amount * bucket.interval  # noqa: FURB136
        self._taken = number = self._taken + 1
        return Hold(cost, number)

    def ready_at(self, cost: Cost) -> float:
        """Return the first moment at which every bucket can give its part; a cost of nothing never waits."""
        return max((ready for _, ready in self._readies(cost)), default=-math.inf)

    def binding(self, cost: Cost) -> Bucket | None:
        """Return the bucket that a request of this cost waits for."""
        return max(self._readies(cost), key=lambda pair: pair[1], default=(None, 0.0))[0]

    def check(self, cost: Cost) -> None:
        """Raise `NeverFits` for a cost above a whole limit: waiting cannot help it."""
        for unit, bucket in self._pairs:
            amount = cost.get(unit, 0)
            if amount > bucket.limit.amount and amount > self.unsure.get(bucket, 0):
                raise NeverFits(bucket.limit.name, float(amount), float(bucket.limit.amount))

    def sent(self, hold: Hold, now: float) -> None:
        """Note that the request leaves now, and how the buckets stand."""
        hold.sent_at = now
        hold.settlements = self._settlements
        cost, number = hold.cost, hold.number
        marks = self.meter.so_far()
        for unit, bucket, lows in self._watched:
            amount, corrected, full_at = cost.get(unit, 0), bucket.corrected, bucket.full_at
            missing = (full_at - now) / bucket.interval if full_at > now else 0
            marks += missing, corrected
            before = missing - amount if missing > amount else 0
            lows.note(number, before - corrected + bucket.returned)
            if before < bucket.brim:
                bucket.brim_last = number
                if self.eased:
                    self.tighten(bucket, number, now)
            if bucket.slices is not None:
                bucket.slices.add(amount, now)
        hold.marks = marks
        self.meter.add(cost, now)

    def mark(self, hold: Hold, bucket: Bucket) -> tuple[float, float] | None:
        """Return how a bucket stood when the request left: what was missing, and the sum of all its corrections."""
        place = len(_UNITS) + 2 * self.buckets.index(bucket)
        return (hold.marks[place], hold.marks[place + 1]) if place < len(hold.marks) else None

    def sent_since(self, hold: Hold, unit: str) -> float:
        """Return what has been sent after a request left."""
        return self.meter.ever(unit) - hold.marks[_UNITS.index(unit)] - hold.cost.get(unit, 0)

    def lowest_since(self, hold: Hold, bucket: Bucket) -> float:
        """Return the least that has been missing from a bucket between later sends and the one of `hold`."""
        return max(self._lows[bucket].since(hold.number) + bucket.corrected - bucket.returned, 0)

    def settle(self, hold: Hold, actual: Cost, now: float, how: str = "used") -> None:
        """End a hold: keep what was used, give back or take what the estimate missed."""
        if hold.ended is not None:
            raise AlreadySettled(f"hold {hold.number}", hold.ended)
        hold.ended = how
        taken = hold.cost
        if actual is taken:
            return
        for unit, bucket in self._pairs:
            extra = actual.get(unit, 0) - taken.get(unit, 0)
            if extra > 0:
                bucket.take(extra, now)
            elif extra < 0:
                bucket.give(-extra, now)
                bucket.returned -= extra
        if hold.sent_at is not None:  # else it stands in nobody's mark: who reserves leaves at once, or not at all
            self._settlements += 1
            for unit, settled in self._settled.items():
                if extra := actual.get(unit, 0) - taken.get(unit, 0):
                    settled.append((self._settlements, hold.number, extra))

    def settled_since(self, hold: Hold, unit: str) -> float:
        """Return what settling of this and earlier holds has changed after `hold` was sent."""
        total: float = 0
        for settlement, number, extra in reversed(self._settled.get(unit, ())):
            if settlement <= hold.settlements:
                break
            if number <= hold.number:
                total += extra
        return total

    def used_lately(self, bucket: Bucket, now: float) -> float:
        """Return the part of a limit that was sent over its last window; of a day's, what has not come back yet."""
        window = bucket.limit.window
        if window > MINUTE:
            return bucket.missing(now) / bucket.limit.amount
        return self.meter.since(bucket.limit.unit, now - window) / bucket.limit.amount

    def _readies(self, cost: Cost) -> list[tuple[Bucket, float]]:
        self.check(cost)
        return [(bucket, bucket.ready_at(amount)) for unit, bucket in self._pairs if (amount := cost.get(unit, 0))]

    def __repr__(self) -> str:
        return f"<Quota {', '.join(str(bucket.limit) for bucket in self.buckets)}>"
