"""Where a lane has not been yet: the first request goes alone, and so does each that goes further than any before.

A server is unknown until it has answered once. It may count in seconds, which shows when more than a second's worth
leaves within a second; or in whole windows, which shows when more than a window's worth leaves within one. The request
that crosses such a line is a scout: the others wait for its reply, or for a moment if that is slow. What a guess
costs is then one refusal and not a volley, and the wait costs nothing, for the bucket fills meanwhile.

How far off a line is need not be asked for each request: a sum over a window grows by what is sent and by nothing else,
so after a look nothing can be crossed until what was missing then has been sent.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from math import inf

from ratelimit.limits.bucket import MINUTE, Bucket
from ratelimit.limits.quota import Cost, Quota

Line = tuple[Bucket | None, int]
"""A bucket and the part of its window that is crossed for the first time; no bucket for the first request of all."""

_PARTS = (60, 1)  # a second of a minute, and the whole of it
_FIRST: Line = (None, 0)
_NONE: frozenset[Line] = frozenset()


class Frontier:
    """The lines a lane has not crossed yet."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._ahead: set[Line] = {_FIRST}
        self._near: dict[str, float] = {}  # by unit, the sum ever sent from which on a line may be crossed
        self._retuned = quota.retuned
        for bucket in quota.buckets:
            self.again(bucket)

    def again(self, bucket: Bucket) -> None:
        """Nothing is known any more of what lies beyond the lines of a bucket."""
        self._near = {}
        if bucket.limit.window <= MINUTE:
            self._ahead.update((bucket, part) for part in _PARTS)

    def crossed_by(self, cost: Cost, now: float) -> AbstractSet[Line]:
        """Return the lines that sending `cost` now would cross; empty nearly always."""
        if not self._ahead:
            return _NONE
        quota, near = self._quota, self._near
        if self._retuned != quota.retuned:
            self._retuned = quota.retuned
            return self._look(cost, now)
        for unit, amount in cost.items():
            if quota.meter.ever(unit) + amount > near.get(unit, -inf):
                return self._look(cost, now)
        return _NONE

    def _look(self, cost: Cost, now: float) -> AbstractSet[Line]:
        meter, near, lines = self._quota.meter, dict.fromkeys(cost, inf), set[Line]()
        for line in self._ahead:
            bucket, part = line
            if bucket is None:
                lines.add(line)
                continue
            unit, limit = bucket.limit.unit, bucket.limit
            amount = cost.get(unit, 0)
            room = limit.amount / part - meter.between(unit, now - limit.window / part, now)
            if 0 < amount > room:
                lines.add(line)
            near[unit] = min(near.get(unit, inf), meter.ever(unit) + room)
        self._near = {} if lines else near
        return lines

    def crossed(self, lines: AbstractSet[Line]) -> None:
        """Somebody is on the way across."""
        self._near = {}
        self._ahead -= lines

    def turned_back(self, lines: AbstractSet[Line]) -> None:
        """Who went was refused: the next one scouts again."""
        self._near = {}
        self._ahead |= lines
