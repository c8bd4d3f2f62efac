"""How many at once a struggling service is asked to bear: additive increase, multiplicative decrease.

Failures cut the number down to a part of what was really in flight, at most once in a while, for all that were on the
way then fail together. Successes raise it again, but only while it is what holds requests back: a number nobody reaches
says nothing.
"""

from __future__ import annotations

_CUT = 0.7
_ROOM = 1.0  # seconds; failures closer together than this are one event
_FULL = 0.9  # of the size in flight is as good as all of it
_PATIENCE = 5  # failures in a row before anything is cut: one alone is nobody's fault


class Congestion:
    """The concurrency of one lane."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._cut_at = float("-inf")
        self._failures = 0

    @property
    def size(self) -> int:
        """How many may be in flight."""
        return max(int(self._size), 1)

    def failed(self, in_flight: int, now: float) -> bool:
        """Note that the service failed or was silent, with so many in flight; true if the size has changed."""
        self._failures += 1
        if self._failures < _PATIENCE or now - self._cut_at < _ROOM:
            return False
        self._cut_at = now
        before = self.size
        self._size = max(min(self._size, in_flight) * _CUT, 1.0)
        return self.size != before

    def succeeded(self, in_flight: int) -> bool:
        """Note that it answered, this one still counted among those in flight; true if the size has changed."""
        self._failures = 0
        if self._size >= self._most or in_flight < self.size * _FULL:
            return False
        before = self.size
        self._size = min(self._size + 1, self._most)
        return self.size != before
