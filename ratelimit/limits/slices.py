"""What has left within the last slice of a server that counts in slices: minutes that start anew, or each second.

Such a server admits so much in any of its slices and nothing on top. Requests that leave within a slice and the spread
of their ways can arrive within one slice, wherever it starts; so a lane that never lets more than a slice's worth leave
in that time is never refused. The spread is not known: it begins small and grows with each refusal.
"""

from __future__ import annotations

import math
from collections import deque

_SPREADS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)  # seconds; a network nearby, a busy machine, the way around the world
_PART = 100  # of a slice: what leaves closer together is one entry, and a spread is never less


class Slices:
    """How much may leave, for a server that counts in slices of so many seconds."""

    __slots__ = ("_closes_at", "_log", "_total", "length", "spread")

    def __init__(self, length: float, spread: float = 0) -> None:
        self.length: float = length
        self.spread: float = spread or next(spread for spread in _SPREADS if spread >= length / _PART)
        self._log: deque[tuple[float, float]] = deque()  # within the span: when the last of it left, and how much
        self._total: float = 0
        self._closes_at = -math.inf  # the last entry takes in what leaves until then

    @property
    def span(self) -> float:
        """Seconds within which what leaves can arrive in one slice."""
        return self.length + self.spread

    def widen(self) -> None:
        """Expect a larger spread from now on. What no network explains is somebody else, who is made room for."""
        wider = next((spread for spread in _SPREADS if spread > self.spread), self.spread * 1.5)
        self.spread = min(wider, 3 * self.length)

    def share(self, most: float, piece: float) -> float:
        """Return what part of its rate a lane can use that leaves `piece` by piece, of which `most` fit in a slice."""
        whole = math.floor(most / piece) * piece if piece and most >= piece else most
        return whole / most * self.length / self.span

    def add(self, amount: float, now: float) -> None:
        """Count what leaves now."""
        log, oldest = self._log, now - self.span
        while log and log[0][0] <= oldest:
            self._total -= log.popleft()[1]
        self._total = self._total + amount if log else amount
        if log and now < self._closes_at:
            amount += log.pop()[1]
        else:
            self._closes_at = now + self.spread / _PART
        log.append((now, amount))

    def ready_at(self, amount: float, most: float) -> float:
        """Return the first moment at which `amount` and what left in the span before are no more than `most`.

        What is more than that by itself leaves alone.
        """
        room, total, ready = max(most - amount, 0), self._total, -math.inf
        for at, left in self._log:
            if total <= room:
                break
            total -= left
            ready = at + self.span
        return ready
