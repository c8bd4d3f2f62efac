"""One turn: leave to send one request, ended exactly once by what the caller knows of it.

used      it was answered; whatever the reply tells of its real cost replaces the estimate
unsent    it never left: everything is given back
refused   a limit turned it away: its tokens are given back, and the lane learns
failed    it was answered with an error that says nothing of limits: the estimate stands, and nobody waits for more
unknown   it was sent and nothing is known: the estimate stands, for the server has probably charged it
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Self

from ratelimit.admission.lane import Lane
from ratelimit.errors import AlreadySettled
from ratelimit.limits.headers import NOTHING, Observed
from ratelimit.limits.quota import UNSENT, Cost, Hold


class Turn:
    """Leave to send one request; an async context manager that waits for it.

    >>> import asyncio
    >>> from ratelimit import MINUTE, Limit, Scheduler
    >>> async def main():
    ...     scheduler = Scheduler({"my-model": [Limit("tokens", 10_000, MINUTE)]}, slack=0)
    ...     async with scheduler.reserve("my-model", tokens=800) as turn:
    ...         turn.used(tokens=600)  # 200 are free again
    ...     return f"{scheduler.snapshot()[0].limits[0].level:,.0f}"
    >>> asyncio.run(main())
    '9,400'
    """

    __slots__ = ("_asked", "_hold", "_lane", "arrival", "cost", "how", "priority", "wait_at_most")

    def __init__(
        self, lane: Lane, cost: Cost, *, priority: float = 0, arrival: int = 0, wait_at_most: float | None = None
    ) -> None:
        self._lane = lane
        self._hold: Hold | None = None
        self._asked = False
        self.cost: Cost = cost
        self.priority: float = priority
        self.arrival: int = arrival
        self.how: str | None = None
        self.wait_at_most: float | None = wait_at_most

    async def __aenter__(self) -> Self:
        if self._asked:
            raise AlreadySettled(repr(self), self.how or "taken")
        self._asked = True
        self._hold = await self._lane.admit(
            self.cost,
            priority=self.priority,
            arrival=self.arrival,
            wait_at_most=self.wait_at_most,
            price=self._pricing(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.how is None:
            self.unknown()

    def _pricing(self) -> Callable[[], Cost] | None:
        """Return what tells the cost by the time the request goes, where it may be known better then."""
        return None

    def observe(self, observed: Observed) -> None:
        """Learn from the headers of the reply."""
        self._lane.observe(self._held(), observed)

    def used(self, *, tokens: float | None = None) -> None:
        """End the turn: it was answered, and cost so many tokens if that is known and headers do not tell better."""
        hold = self._held()
        if tokens is not None and not 0 <= tokens < inf:
            raise ValueError(f"an answer costs a finite number of tokens, zero or more, not {tokens!r}")
        if tokens is None or self._lane.ledger.quota.hears("tokens"):
            self._end(hold.cost, "used")
        else:
            self._end({**hold.cost, "tokens": tokens}, "used")

    def unsent(self) -> None:
        """End the turn: the request never left."""
        self._end(UNSENT, "unsent")

    def refused(self, observed: Observed = NOTHING, *, because_of_limit: bool = True) -> None:
        """End the turn: a limit turned the request away, or (`because_of_limit=False`) the service slows everybody."""
        hold = self._held()
        if because_of_limit:
            self._lane.refused(hold, observed)
        else:
            self._lane.cool(1.0 if observed.retry_after is None else observed.retry_after, hold)
        self._end({"requests": hold.cost.get("requests", 0)}, "refused")

    def failed(self) -> None:
        """End the turn: it was answered with an error of its own, which says nothing of limits."""
        self._end(self._held().cost, "failed")

    def unknown(self) -> None:
        """End the turn: it was sent, and nothing is known of it."""
        self._end(self._held().cost, "unknown")

    def _held(self) -> Hold:
        if self.how is not None:
            raise AlreadySettled(repr(self), self.how)
        if self._hold is None:
            raise AlreadySettled(repr(self), "not begun")
        return self._hold

    def _end(self, actual: Cost, how: str) -> None:
        hold = self._held()
        self.how = how
        self._lane.end(hold, actual, how)

    def __repr__(self) -> str:
        return f"<Turn {self._lane.name}: {dict(self.cost)}, {self.how or 'open'}>"
