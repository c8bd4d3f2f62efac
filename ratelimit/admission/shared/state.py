"""What a store keeps of one lane: its limits as buckets, and the programs that hold leases."""

from __future__ import annotations

from math import ceil

import msgspec

from ratelimit.admission.shared.store import LimitKnown
from ratelimit.limits.bucket import MINUTE

AHEAD = 200_000  # microseconds of an even lane's rate that are leased before they have come back


class Limit(LimitKnown, kw_only=True):
    """One bucket, as in `limits/bucket.py`."""

    full_at: float
    closed: float
    corrected: float = 0
    taken: float = 0
    ours: float = 0

    @property
    def interval(self) -> float:
        """Microseconds for one to come back."""
        return self.window * 1e6 / (self.amount * self.share)

    @property
    def ceiling(self) -> float:
        """What is left of the amount when the reserve is kept back."""
        return max(self.amount - self.reserve, 0.0)

    @property
    def capacity(self) -> float:
        """What may be leased at once: of a lane that saves nothing up, what it sends evenly until the next lease."""
        return min(self.burst + AHEAD / self.interval, self.ceiling) if self.burst >= 0 else self.ceiling

    def take(self, amount: float, now: float) -> None:
        """Take `amount`, into debt if need be; below zero is given back, as far as a full bucket can hold it."""
        if amount > 0:
            self.full_at = ceil(max(self.full_at, now) + amount * self.interval)
        elif amount < 0 and self.full_at > now:
            self.full_at = ceil(max(self.full_at + amount * self.interval, now))

    def ready(self, ahead: float, amount: float, now: float) -> float:
        """Return when `amount` may be taken after `ahead`: a large one waits for the reserve to fill, too."""
        capacity = self.capacity
        if amount <= capacity:
            ready = max(self.full_at, now) + (ahead + amount - capacity) * self.interval
        else:
            ready = (
                max(self.full_at + (amount - min(amount, self.ceiling)) * self.interval, now) + ahead * self.interval
            )
        return max(ready, self.closed)


class Holder(msgspec.Struct):
    """One program."""

    id: str
    name: str
    expires: float
    tag: float
    weight: float = 1
    priority: float = 0
    number: int = 0
    units: list[str] = []
    need: list[float] = []
    unmet: list[float] = []
    granted: list[float] = []
    total: list[float] = []
    hint: float = 0

    def of(self, amounts: list[float], unit: str) -> float:
        """Return the amount of a unit."""
        return amounts[self.units.index(unit)] if unit in self.units else 0.0

    @property
    def hungry(self) -> bool:
        """Whether it wanted more than it got."""
        return any(amount > 0 for amount in self.unmet)


class Lane(msgspec.Struct):
    """What the store keeps of one lane."""

    name: str = ""
    born: float = 0
    seen: float = 0
    tag: float = 0
    flow: float = 0
    """Up to when what has been leased keeps the lane busy at its pace."""
    answered: bool = False
    limits: list[Limit] = []
    holders: list[Holder] = []
    facts: list[tuple[str, str]] = []

    @property
    def clocked(self) -> list[Limit]:
        """The limits that time is counted by: a day's limit is slow, and seldom scarce."""
        return [limit for limit in self.limits if limit.window <= MINUTE] or self.limits


def keeps_until(lane: Lane, now: float) -> float:
    """Return until when a lane says anything that an empty store would not."""
    return max([now, *(limit.full_at for limit in lane.limits), *(limit.closed for limit in lane.limits)]) + 3600e6
