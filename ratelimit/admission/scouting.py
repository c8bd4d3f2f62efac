"""How a lane goes where it has not been: one ahead, the others after it when it is back, or when waiting would cost.

The first request of all goes alone, for what the buckets really hold may be a surprise; and so does each that goes
further than any before (`limits/frontier.py`). The others wait for its answer, but not for ever:

    for the first     `patience`, while its reply may teach what it takes of tokens. Where requests are what is limited
                      that is known, and there is only a refusal to wait for, which comes long before an answer does
    for the others    until the buckets are full again, `patience` twice at most: what comes back meanwhile is not lost

Whoever leaves after that, before the answer, leaves slowly. Nothing is lost then either, and a service that counts
otherwise has had a few to refuse and not a volley. A lane whose farthest scout came back well may go fast.
"""

from __future__ import annotations

from math import inf

from ratelimit.admission.pacing import Pacer
from ratelimit.limits.bucket import MINUTE
from ratelimit.limits.quota import Hold, Quota

_SURE = 0.25  # patiences; refusals take a network's way, and no thinking


class Scouting:
    """Who is ahead, and how long the others wait."""

    __slots__ = ("_alone", "_answered", "_farthest", "_pacer", "_patience", "_scout", "_slow_until", "until")

    def __init__(self, pacer: Pacer, patience: float) -> None:
        self._pacer = pacer
        self._patience = patience
        self._answered = False
        self._alone = True  # nobody has left yet
        self._scout: Hold | None = None
        self._farthest: int | None = None  # the last that went further than any before, until it or a later one is back
        self._slow_until = 0.0
        self.until: float = 0.0  # nobody leaves before

    def waits(self, now: float) -> bool:
        """Return whether everybody waits for the one ahead."""
        return self._scout is not None and now < self.until

    def sent(self, hold: Hold, quota: Quota, now: float, *, ahead: bool) -> None:
        """Note that a request leaves, perhaps `ahead` of all that have left before."""
        if ahead:
            self._scout = hold
            if self._alone:
                parts = _SURE if self._pacer.goes_by_requests(quota, hold.cost) else 1
                self.until = self._slow_until = now + self._patience * parts
                self._alone = False
            else:
                self._slow_until = now + self._patience * 2
                self.until = min(self._slow_until, _filled_at(quota, hold))
                self._farthest = hold.number
        elif not self._answered:
            self._scout, self.until = hold, now + self._pacer.gap(quota, hold.cost)
        elif self._scout is not None and now < self._slow_until:
            self.until = now + self._pacer.gap(quota, hold.cost)

    def heard(self, hold: Hold) -> bool:
        """Note that a request was answered well; true if that is what others wait for."""
        if self._farthest is not None and hold.number >= self._farthest:
            self._farthest = None
            self._pacer.open()
        return self.ended(hold, "used")

    def ended(self, hold: Hold, how: str) -> bool:
        """Note what has become of a request; true if that is what others wait for."""
        mattered = hold is self._scout and how != "unknown"
        if how in {"used", "refused"}:
            mattered = mattered or not self._answered
            self._answered = True
        elif how == "unsent" and not self._answered:
            self._alone = True
        if mattered:
            self._scout = None
        return mattered


def _filled_at(quota: Quota, hold: Hold) -> float:
    """Return when all buckets are full, after which what comes back is lost."""
    brief = (bucket for bucket in quota.buckets if hold.cost.get(bucket.limit.unit))
    return max((bucket.full_at for bucket in brief if bucket.limit.window <= MINUTE), default=inf)
