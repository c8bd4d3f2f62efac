"""Spaces what has been leased, where the service counts in slices.

Such a lane saves nothing up: a lone one leaves evenly by its bucket. A lease is fetched a moment ahead of that, so what
is in it leaves evenly until the next one, and all programs together do, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from ratelimit.limits.bucket import Bucket
from ratelimit.limits.quota import Cost


class Evenly:
    """When the next request of a program may leave."""

    __slots__ = ("_gap", "next_at")

    def __init__(self) -> None:
        self._gap = 0.0
        self.next_at: float = -inf

    def spread(self, buckets: Iterable[Bucket], purse: Cost, cost: Cost, seconds: float) -> None:
        """Let what is in the purse leave over so many seconds, in pieces of this cost."""
        pieces = [
            purse.get(bucket.limit.unit, 0) / amount
            for bucket in buckets
            if bucket.slices and (amount := cost.get(bucket.limit.unit))
        ]
        self._gap = seconds / max(min(pieces), 1) if pieces else 0.0

    def sent(self, now: float) -> None:
        """Count a request that leaves; one that is a little late does not delay the next."""
        self.next_at = max(self.next_at, now - self._gap) + self._gap
