"""Where a lane has not been yet: the first request goes alone, and so does each that goes further than any before.

A server is unknown until it has answered once. It may count in seconds, which shows when more than a second's worth
leaves within a second; or in whole windows, which shows when more than a window's worth leaves within one. The request
that crosses such a line is a scout: the others wait for its reply, or for a moment if that is slow. What a guess
costs is then one refusal and not a volley, and the wait costs nothing, for the bucket fills meanwhile.
"""

from __future__ import annotations

from ratelimit.limits.bucket import MINUTE, Bucket
from ratelimit.limits.quota import Cost, Quota

Line = tuple[Bucket | None, int]
"""A bucket and the part of its window that is crossed for the first time; no bucket for the first request of all."""

_PARTS = (60, 1)  # a second of a minute, and the whole of it
_FIRST: Line = (None, 0)


class Frontier:
    """The lines a lane has not crossed yet."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._ahead: set[Line] = {_FIRST}
        for bucket in quota.buckets:
            self.again(bucket)

    def again(self, bucket: Bucket) -> None:
        """Nothing is known any more of what lies beyond the lines of a bucket."""
        if bucket.limit.window <= MINUTE:
            self._ahead.update((bucket, part) for part in _PARTS)

    def crossed_by(self, cost: Cost, now: float) -> set[Line]:
        """Return the lines that sending `cost` now would cross; empty nearly always."""
        if not self._ahead:
            return set()
        return {line for line in self._ahead if self._beyond(line, cost, now)}

    def crossed(self, lines: set[Line]) -> None:
        """Somebody is on the way across."""
        self._ahead -= lines

    def turned_back(self, lines: set[Line]) -> None:
        """Who went was refused: the next one scouts again."""
        self._ahead |= lines

    def _beyond(self, line: Line, cost: Cost, now: float) -> bool:
        bucket, part = line
        if bucket is None:
            return True
        unit, limit = bucket.limit.unit, bucket.limit
        amount = cost.get(unit, 0)
        sent = self._quota.meter.between(unit, now - limit.window / part, now)
        return amount > 0 and sent + amount > limit.amount / part
