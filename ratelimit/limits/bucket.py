"""One limit, and how it stands now, kept as one number.

A bucket that refills continuously needs neither a level nor the time of its last update. It needs the moment at which
it will be full again, `full_at`: taking moves that moment up, giving back moves it down, and time does the rest by
passing. A bucket in debt is simply full again later than usual. When an amount may be taken is then one subtraction,
and whoever waits until that instant and asks again compares the same number: no epsilon, and nobody spins.

Three numbers stand between the published limit and what may be taken at once, the *capacity*:

    limit       what is published; the refill rate is limit / window, and no request above it can ever pass
    reserve     kept back, so that requests which arrive closer together than they were sent find room, and so that
                another program on the same key does (at least `slack` seconds of refill; it grows when one is seen)
    burst       a server that counts in slices shorter than its window refuses a burst that the window would allow

A request larger than the capacity but within the limit is not lost: it may go once the bucket has been full for as long
as the missing part takes to refill. `share` scales the refill rate, for a key that somebody else uses too.

Everything works on fractions as it does on floats, so tests can ask for equality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ratelimit.limits.slices import Slices

MINUTE = 60.0
DAY = 86_400.0

_BRIM = 0.75  # of the limit; where more is missing, no pace has so much on the way that the server's may be full

_NAMES = {
    ("requests", MINUTE): "RPM",
    ("tokens", MINUTE): "TPM",
    ("requests", DAY): "RPD",
    ("tokens", DAY): "TPD",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """One documented cap: an amount of a unit per window of so many seconds.

    `scope` is empty for the organization's, else whose it is ("project"). `own` marks a cap of the user's own choosing,
    which no header raises.

        >>> Limit("requests", 500, MINUTE).name
        'RPM'
    """

    unit: str
    amount: float
    window: float
    scope: str = ""
    own: bool = False

    def __post_init__(self) -> None:
        for name, value in (("amount", self.amount), ("window", self.window)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"a limit's {name} is a finite number above zero, not {value!r}")

    @property
    def name(self) -> str:
        """What people call it: RPM, TPM, RPD."""
        known = _NAMES.get((self.unit, self.window)) or f"{self.unit} per {float(self.window):g} s"
        return f"{self.scope} {known}" if self.scope else known

    @property
    def rate(self) -> float:
        """Units that come back per second."""
        return self.amount / self.window

    def __str__(self) -> str:
        amount = float(self.amount)
        return f"{amount:{',.0f' if 1e9 <= amount < 1e15 else ',.10g'}} {self.name}"


class Bucket:
    """A token bucket kept as one number: the time at which it will be full again."""

    __slots__ = (
        "_burst",
        "_reserve",
        "_share",
        "brim",
        "brim_from",
        "brim_last",
        "closed_until",
        "corrected",
        "depth",
        "full_at",
        "interval",
        "limit",
        "returned",
        "slices",
    )

    def __init__(self, limit: Limit, now: float, *, reserve: float = 0) -> None:
        self.limit: Limit = limit
        self.full_at: float = now
        self.closed_until: float = now  # a cooldown; nothing is lost by it, the bucket fills meanwhile
        self.corrected: float = 0  # the sum of all drift ever applied, in units
        self.returned: float = 0  # the sum of all that settling ever gave back
        self.brim_from: int = 0  # the first hold that counts of those that left while the server's may have been full
        self.brim_last: int = 0  # the last of them
        self.slices: Slices | None = None  # how much leaves in any slice, where the server counts in such
        self._share: float = 1
        self._burst: float = math.inf
        self._reserve = reserve
        self._fit()

    @property
    def capacity(self) -> float:
        """What may be taken at once from a full bucket."""
        return min(self._burst, self.ceiling)

    @property
    def ceiling(self) -> float:
        """What the published limit leaves when the reserve is kept back."""
        return max(self.limit.amount - self._reserve, 0)

    @property
    def share(self) -> float:
        """The part of the refill rate that is ours."""
        return self._share

    @property
    def reserve(self) -> float:
        """What is kept back of the published limit."""
        return self._reserve

    @property
    def burst(self) -> float:
        """The most that goes at once, whatever has been saved up."""
        return min(self._burst, self.limit.amount)

    @property
    def is_whole(self) -> bool:
        """Whether all that has been saved up may go at once."""
        return self._burst == math.inf

    def ready_at(self, amount: float) -> float:
        """Return the first moment at which `amount` may be taken."""
        ready = self.full_at + amount * self.interval - self.depth
        if amount > self.capacity:
            # One that is larger than the burst goes when everything before it is paid for; one that reaches into
            # the reserve waits until that, too, has had the time to fill.
            ready -= max(min(amount, self.ceiling) - self.capacity, 0) * self.interval
        return max(ready, self.open_at(amount))

    def open_at(self, amount: float) -> float:
        """Return the first moment at which no cooldown and no slice is in the way, whatever is left."""
        if self.slices is None:
            return self.closed_until
        return max(self.slices.ready_at(amount, self.limit.rate * self.slices.length), self.closed_until)

    def take(self, amount: float, now: float) -> None:
        """Take `amount`, into debt if need be."""
        self.full_at = max(self.full_at, now) + amount * self.interval

    def give(self, amount: float, now: float) -> None:
        """Put `amount` back; what a full bucket cannot hold is lost, as it is on the server."""
        if self.full_at > now:
            self.full_at = max(self.full_at - amount * self.interval, now)

    def shift(self, amount: float, now: float) -> None:
        """Move the level by what somebody else took (above zero) or what was never charged (below)."""
        if amount >= 0:
            self.take(amount, now)
        else:
            self.give(-amount, now)
        self.corrected += amount

    def missing(self, now: float) -> float:
        """Return how much has been taken and has not come back yet."""
        return max(self.full_at - now, 0) / self.interval

    def level(self, now: float) -> float:
        """Return what may be taken now; negative in debt."""
        return self.capacity - self.missing(now)

    def retune(
        self,
        now: float,
        *,
        limit: Limit | None = None,
        share: float | None = None,
        burst: float | None = None,
        reserve: float | None = None,
    ) -> None:
        """Change what the bucket is; what is missing from it stays missing."""
        missing = self.missing(now)
        if limit is not None:
            self.limit = limit
        if share is not None:
            self._share = share
        if burst is not None:
            self._burst = burst
        if reserve is not None:
            self._reserve = reserve
        self._fit()
        if self.full_at > now:
            self.full_at = now + missing * self.interval

    def _fit(self) -> None:
        self.interval: float = self.limit.window / (self.limit.amount * self._share)
        self.depth: float = self.capacity * self.interval
        self.brim: float = self.limit.amount * _BRIM if self.limit.window <= MINUTE else 0

    def __repr__(self) -> str:
        return f"<Bucket {self.limit}: full at {float(self.full_at):.3f}>"
