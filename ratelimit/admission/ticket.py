"""A place in a lane's queue: who leaves first is who is most urgent, then who came first."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable

from ratelimit.limits.quota import Cost, Hold


class Ticket:
    """A place in the queue."""

    __slots__ = ("arrival", "cost", "future", "priority", "queued_at")

    def __init__(self, cost: Cost, priority: float, arrival: int, future: Future[Hold], queued_at: float) -> None:
        self.cost: Cost = cost
        self.priority: float = priority
        self.arrival: int = arrival
        self.future: Future[Hold] = future
        self.queued_at: float = queued_at

    def __lt__(self, other: Ticket) -> bool:
        if self.priority != other.priority:
            return self.priority < other.priority
        return self.arrival < other.arrival


class PricedTicket(Ticket):
    """A place in the queue of one whose cost may be known better by the time it goes."""

    __slots__ = ("price",)

    price: Callable[[], Cost]
