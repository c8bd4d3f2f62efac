"""One lane: who waits, who goes next, and the one task that waits for capacity on behalf of all of them.

Tickets leave by (priority, arrival). While the head waits, the bucket it waits for is below what the head needs, hence
below its capacity, so nothing of the binding limit is wasted by letting nobody pass; and a large request is never
passed for ever. A ticket takes its concurrency slot together with the quota, never after it.

The dispatcher lives as long as somebody waits. It sleeps until the instant the ledger has named, or until something
changes; there is nothing else in the lane that waits, except for the pacing between a grant and the next.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future, Task
from collections.abc import Sequence
from heapq import heappop, heappush

from ratelimit.admission.events import Changed, Granted, Observer, Queued, Refused, Settled, Waiting
from ratelimit.admission.ledger import Ledger
from ratelimit.admission.pacing import Pacer
from ratelimit.errors import RateLimitError
from ratelimit.limits.drift import Change
from ratelimit.limits.headers import Observed
from ratelimit.limits.quota import UNSENT, Cost, Hold


class Ticket:
    """A place in the queue."""

    __slots__ = ("arrival", "cost", "future", "key", "queued_at")

    def __init__(self, cost: Cost, priority: float, arrival: int, future: Future[Hold], queued_at: float) -> None:
        self.cost = cost
        self.arrival = arrival
        self.key = (priority, arrival)
        self.future = future
        self.queued_at = queued_at

    def __lt__(self, other: Ticket) -> bool:
        return self.key < other.key


class Lane:
    """What shares a quota, and who waits for it."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        *,
        concurrency: int,
        pace: float,
        patience: float,
        observer: Observer | None,
        loop: AbstractEventLoop,
    ) -> None:
        self.name = name
        self.ledger = ledger
        self.concurrency = concurrency
        self.in_flight = 0
        self.refusals = 0
        self.waiting_for: str | None = None
        self.waiting_until: float | None = None
        self._loop = loop
        self._observer = observer
        self._queue: list[Ticket] = []
        self._gone = 0
        self._changed = asyncio.Event()
        self._dispatcher: Task[None] | None = None
        self._scout: Hold | None = None
        self._scouting_until = 0.0
        self._patience = patience
        self._pacer = Pacer(pace)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue) - self._gone

    async def admit(self, cost: Cost, *, priority: float, arrival: int) -> Hold:
        """Wait for a turn; the caller has a slot and a hold afterwards, and nothing if it is cancelled meanwhile."""
        self.ledger.quota.check(cost)
        ticket = Ticket(cost, priority, arrival, self._loop.create_future(), self._loop.time())
        heappush(self._queue, ticket)
        if self._observer:
            self._observer(Queued(self.name, ticket.queued_at, self.waiting))
        if self._dispatcher is None:
            self._dispatcher = self._loop.create_task(self._dispatch(), name=f"lane {self.name}")
        elif self._queue[0] is ticket:
            self._changed.set()
        try:
            return await ticket.future
        except asyncio.CancelledError:
            if ticket.future.cancelled():
                self._drop(ticket)
            elif ticket.future.exception() is None:
                self.end(ticket.future.result(), UNSENT, "unsent")
            raise

    def end(self, hold: Hold, actual: Cost, how: str) -> None:
        """Settle a hold and free its slot."""
        self.ledger.settle(hold, actual, how)
        self.in_flight -= 1
        if hold is self._scout and how != "unknown":
            self._scout = None
        if self._observer:
            self._observer(Settled(self.name, self._loop.time(), how, actual.get("tokens", 0)))
        self._changed.set()

    def observe(self, hold: Hold, observed: Observed) -> None:
        """Learn from a reply."""
        if hold is self._scout:
            self._scout = None
        self._report(self.ledger.observe(hold, observed))

    def refused(self, hold: Hold, observed: Observed) -> None:
        """Learn from a refusal that a limit was the reason for."""
        self.refusals += 1
        changes = self.ledger.refused(hold, observed)
        if self._observer:
            named = next((change.limit for change in changes), None)
            self._observer(Refused(self.name, self._loop.time(), named, observed.retry_after))
        self._report(changes)

    def cool(self, seconds: float) -> None:
        """Send nothing for so long."""
        self.ledger.cool(seconds)
        self._changed.set()

    def resize(self, concurrency: int) -> None:
        """Allow so many in flight from now on."""
        self.concurrency = concurrency
        self._changed.set()

    def _report(self, changes: Sequence[Change]) -> None:
        if changes:
            self._changed.set()
            if self._observer:
                now = self._loop.time()
                for change in changes:
                    self._observer(Changed(self.name, now, change))

    async def _dispatch(self) -> None:
        """Grant turns in order until nobody waits."""
        while (ticket := self._head()) is not None:
            self._changed.clear()
            if self.in_flight >= self.concurrency:
                await self._until(None, "concurrency")
            elif self._scout is not None and self._loop.time() < self._scouting_until:
                await self._until(self._scouting_until, "first reply")
            else:
                await self._serve(ticket)
        self._dispatcher = None

    async def _serve(self, ticket: Ticket) -> None:
        """Grant the head its turn, or sleep until it may be asked for again."""
        try:
            answer = await self.ledger.reserve(ticket.cost)
        except RateLimitError as never:  # a limit has fallen below what this one needs; the next may still fit
            heappop(self._queue)
            if not ticket.future.done():
                ticket.future.set_exception(never)
            return
        if isinstance(answer, Hold):
            await self._grant(ticket, answer)
        else:
            bucket = self.ledger.quota.binding(ticket.cost)
            await self._until(answer, bucket.limit.name if bucket else "quota")

    async def _grant(self, ticket: Ticket, hold: Hold) -> None:
        self.in_flight += 1
        self.waiting_for = self.waiting_until = None
        heappop(self._queue)
        await self._pacer.wait(self.ledger.quota, ticket.cost, self._loop.time())
        if ticket.future.done():
            self._gone -= 1
            self.end(hold, UNSENT, "unsent")
            return
        if self.ledger.sent(hold):
            self._scout = hold
            self._scouting_until = self._loop.time() + self._patience
        ticket.future.set_result(hold)
        if self._observer:
            now = self._loop.time()
            self._observer(Granted(self.name, now, now - ticket.queued_at, ticket.cost.get("tokens", 0)))

    async def _until(self, moment: float | None, reason: str) -> None:
        """Sleep until `moment` or until something changes."""
        if self._observer and (reason, moment) != (self.waiting_for, self.waiting_until):
            now = self._loop.time()
            self._observer(Waiting(self.name, now, reason, now if moment is None else moment))
        self.waiting_for, self.waiting_until = reason, moment
        alarm = None if moment is None else self._loop.call_at(moment, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if alarm:
                alarm.cancel()

    def _head(self) -> Ticket | None:
        while self._queue and self._queue[0].future.done():
            heappop(self._queue)
            self._gone -= 1
        return self._queue[0] if self._queue else None

    def _drop(self, ticket: Ticket) -> None:
        """Forget one who has left the queue; its ticket stays until it reaches the top."""
        self._gone += 1
        if self._queue and self._queue[0] is ticket:
            self._changed.set()

    def __repr__(self) -> str:
        return f"<Lane {self.name}: {self.status()}>"

    def status(self) -> str:
        """Return in one line who waits, and for what."""
        text = f"{self.waiting} waiting, {self.in_flight} in flight"
        if self.waiting and self.waiting_for:
            if self.waiting_until is None:
                return f"{text}, next when a slot is free"
            return f"{text}, next in {max(self.waiting_until - self._loop.time(), 0):.2f}s ({self.waiting_for})"
        return text
