"""How a lane goes where it has not been: one ahead, the others after it when it is back, or when waiting would cost.

The first request of all goes alone, for what the buckets really hold may be a surprise; and so does each that goes
further than any before (`limits/frontier.py`). The others wait for its answer, but not for ever:

    for the first     a quarter of `patience`: there is a refusal to wait for, which comes long before an answer does.
                      The bucket is full, so each moment is lost; what tokens cost is learnt from the answer even so.
                      All of it where there is no limit of a minute that could lose anything
    for the others    until the buckets are full again, `patience` twice at most: what comes back meanwhile is not lost.
                      Once it is known how long requests are on their way, until a refusal would have come: none is as
                      good as an answer

Whoever leaves after that, before the answer, leaves slowly. Nothing is lost then either, and a service that counts
otherwise has had a few to refuse and not a volley. A lane whose farthest scout came back well may go fast.
"""

from __future__ import annotations

from math import inf

from ratelimit.admission.pacing import Pacer
from ratelimit.limits.bucket import MINUTE
from ratelimit.limits.quota import Hold, Quota

_SURE = 0.25  # patiences; refusals take a network's way, and no thinking
_LONGER = 2.0  # times the longest way seen; a refusal has come by then


class Scouting:
    """Who is ahead, and how long the others wait."""

    __slots__ = (
        "_alone",
        "_answered",
        "_farthest",
        "_left_at",
        "_pacer",
        "_patience",
        "_scout",
        "_slow_until",
        "_sure",
        "until",
    )

    def __init__(self, pacer: Pacer, patience: float) -> None:
        self._pacer = pacer
        self._patience = patience
        self._answered = False
        self._alone = True  # nobody has left yet
        self._scout: Hold | None = None
        self._farthest: int | None = None  # the last that went further than any before, until it or a later one is back
        self._left_at = 0.0  # when it left
        self._slow_until = 0.0
        self._sure = inf  # seconds within which a refusal comes
        self.until: float = 0.0  # nobody leaves before

    def waits(self, now: float) -> bool:
        """Return whether everybody waits for the one ahead."""
        return self._scout is not None and now < self.until

    def sent(self, hold: Hold, quota: Quota, now: float, *, ahead: bool) -> None:
        """Note that a request leaves, perhaps `ahead` of all that have left before."""
        if ahead:
            self._scout = hold
            if self._alone:
                parts = _SURE if self._pacer.gap(quota, hold.cost) else 1  # a day's limit loses nothing by it
                self.until = self._slow_until = now + self._patience * parts
                self._alone = False
            else:
                self._slow_until = now + min(self._patience * 2, self._sure)
                self.until = min(self._slow_until, _filled_at(quota, hold))
                self._farthest, self._left_at = hold.number, now
        elif not self._answered:
            gap = min(self._pacer.gap(quota, hold.cost), self._patience * _SURE)
            self._scout, self.until = hold, now + gap
        elif self._scout is not None and now < self._slow_until:
            self.until = now + self._pacer.gap(quota, hold.cost)
        elif self._farthest is not None and now >= self._left_at + self._sure:
            self._passed()

    def heard(self, hold: Hold) -> bool:
        """Note that a request was answered well; true if that is what others wait for."""
        if self._farthest is not None and hold.number >= self._farthest:
            self._passed()
        return self.ended(hold, "used")

    def travelled(self, way: float) -> bool:
        """Note how long a request was on its way there and back; true if others need no longer wait for theirs."""
        before = self.until
        known = 0.0 if self._sure == inf else self._sure
        self._sure = max(known, way * _LONGER, self._patience * _SURE)
        if self._farthest is not None:
            self._slow_until = min(self._slow_until, self._left_at + self._sure)
            self.until = min(self.until, self._slow_until)
        return self.until < before

    def _passed(self) -> None:
        self._farthest = None
        self._pacer.open()

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
