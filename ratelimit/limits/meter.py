"""How much was sent lately: sums over any recent stretch of time, in bounded memory.

Sums are kept per slot of a twentieth of a second as running totals, so a stretch costs two binary searches. A stretch
takes in every slot it touches: whoever asks wants to know how much *could* have arrived in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from math import floor

SLOT = 0.05
KEPT = 120.0  # seconds; two windows of a minute, and longer than most replies take


class Meter:
    """Running totals of what was sent, by unit."""

    __slots__ = ("_gone", "_slots", "_totals")

    def __init__(self, units: Iterable[str]) -> None:
        self._slots: list[int] = []  # ascending
        self._totals: dict[str, list[float]] = {unit: [] for unit in units}  # up to and with that slot
        self._gone: dict[str, float] = dict.fromkeys(self._totals, 0)  # counted, and kept no longer

    def add(self, cost: Mapping[str, float], now: float) -> None:
        """Count what is sent at `now`, which never lies before the last send."""
        slot = floor(now / SLOT)
        if not self._slots or slot > self._slots[-1]:
            self._open(slot)
        for unit, totals in self._totals.items():
            totals[-1] += cost.get(unit, 0)

    def ever(self, unit: str) -> float:
        """Return what was sent since there is anything to count."""
        totals = self._totals.get(unit)
        return totals[-1] + self._gone[unit] if totals else 0

    def so_far(self) -> list[float]:
        """Return what was ever sent of each unit, in their order."""
        return [totals[-1] + self._gone[unit] if totals else 0 for unit, totals in self._totals.items()]

    def between(self, unit: str, start: float, end: float) -> float:
        """Return what was sent from `start` to `end`, whole slots, as far back as it is kept."""
        totals = self._totals.get(unit)
        if not totals:
            return 0
        first = bisect_left(self._slots, floor(start / SLOT))
        last = bisect_left(self._slots, floor(end / SLOT) + 1)
        if last <= first:
            return 0
        return totals[last - 1] - (totals[first - 1] if first else 0)

    def since(self, unit: str, start: float) -> float:
        """Return what was sent from `start` on."""
        return self.between(unit, start, (self._slots[-1] + 0.5) * SLOT) if self._slots else 0

    def _open(self, slot: int) -> None:
        slots = self._slots
        slots.append(slot)
        for totals in self._totals.values():
            totals.append(totals[-1] if totals else 0)
        oldest = slot - int(KEPT / SLOT)
        if slots[0] < oldest - len(slots) // 2:  # in chunks, so that dropping costs nothing per send
            gone = bisect_left(slots, oldest)
            del slots[:gone]
            for unit, totals in self._totals.items():
                before = totals[gone - 1]
                self._gone[unit] += before
                totals[:] = [total - before for total in totals[gone:]]
