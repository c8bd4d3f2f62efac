"""A store within this process: for schedulers that share one process, and for whoever serves others from it."""

from __future__ import annotations

from collections.abc import Callable

from ratelimit.admission.shared.decision import decide, see
from ratelimit.admission.shared.state import Lane
from ratelimit.admission.shared.store import Answer, Ask, LaneSeen


class MemoryStore:
    """Lanes in a dictionary; `clock` tells whole microseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._lanes: dict[str, Lane] = {}

    async def check(self) -> None:
        """Do nothing: it is there."""

    async def lease(self, group: str, ask: Ask) -> Answer:
        """Take a program's word and give it a lease."""
        return decide(self._lanes.setdefault(group, Lane()), ask, self._clock())

    async def peek(self) -> list[LaneSeen]:
        """Return every lane that is in use."""
        return [see(lane, self._clock()) for lane in self._lanes.values() if lane.born]

    async def aclose(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def forget(self) -> None:
        """Lose everything, as a store does that is restarted empty."""
        self._lanes.clear()
