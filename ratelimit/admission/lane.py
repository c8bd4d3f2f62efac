"""One lane: who waits, who goes next, and the one task that waits for capacity on behalf of all of them.

Tickets leave by (priority, arrival). While the head waits, the bucket it waits for is below what the head needs, hence
below its capacity, so nothing of the binding limit is wasted by letting nobody pass; and a large request is never
passed for ever. A ticket takes its concurrency slot together with the quota, never after it.

The dispatcher lives as long as somebody waits. It sleeps until the instant the ledger has named, or until something
changes; there is nothing else in the lane that waits, except for the pacing between a grant and the next. Where nobody
waits and nothing is in the way, a request is let through on the spot.

Who gives up leaves its ticket behind, to be thrown away when it reaches the top, or when most tickets are such.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Task
from collections.abc import Awaitable, Callable, Sequence
from heapq import heapify, heappop, heappush, heappushpop
from itertools import islice
from math import inf

from ratelimit.admission.events import Audience, Changed, Granted, Notice, Paused, Queued, Refused, Settled, Waiting
from ratelimit.admission.ledger import Ledger
from ratelimit.admission.pacing import Pacer
from ratelimit.admission.scouting import Scouting
from ratelimit.admission.ticket import PricedTicket, Ticket
from ratelimit.errors import RateLimitError, WaitedTooLong
from ratelimit.limits.drift import Change, way_of
from ratelimit.limits.headers import Observed
from ratelimit.limits.quota import UNSENT, Cost, Hold

_LONG = 61.0  # seconds; no limit of a minute makes anybody wait longer
_LITTER = 64  # tickets left behind that are not worth sweeping up


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
        audience: Audience,
        loop: AbstractEventLoop,
    ) -> None:
        self.name = name
        self.ledger = ledger
        self.concurrency: int = concurrency
        self.waiting: int = 0
        self.in_flight: int = 0
        self.refusals: int = 0
        self.waiting_for: str | None = None
        self.waiting_until: float | None = None
        self.loop = loop
        self._audience = audience
        self._waited_for: str | None = None  # last of all, since somebody waits
        self._head: Ticket | None = None  # taken off the queue, so that nobody else is while the ledger is asked
        self._queue: list[Ticket] = []
        self._changed = asyncio.Event()
        self._dispatcher: Task[None] | None = None
        self._cooled_at = -inf
        self._pacer = Pacer(pace)
        self._scouting = Scouting(self._pacer, patience)
        ledger.attend(self)

    def admit(
        self,
        cost: Cost,
        *,
        priority: float,
        arrival: int,
        wait_at_most: float | None = None,
        price: Callable[[], Cost] | None = None,
    ) -> Awaitable[Hold]:
        """Wait for a turn; the caller has a slot and a hold afterwards, and nothing if it is cancelled meanwhile.

        `price` says what the request costs when it is about to go, where that may be known better than when it came.
        Raises `NeverFits` at once for a cost above a whole limit, and `WaitedTooLong` after `wait_at_most` seconds.
        """
        quota, now = self.ledger.quota, self.loop.time()
        quota.check(cost)
        if Queued in self._audience:
            self._audience.tell(Queued(self.name, now, self.waiting + 1), self.loop)
        if (  # nobody waits, and nothing but the quota can be in the way
            self._dispatcher is None
            and self.in_flight < self.concurrency
            and not self._scouting.waits(now)
            and self._pacer.ready(quota, cost, now)
        ):
            return self._at_once(cost, priority, arrival, wait_at_most, price)
        return self._in_line(self._ticket(cost, priority, arrival, price), wait_at_most)

    async def _at_once(
        self, cost: Cost, priority: float, arrival: int, wait_at_most: float | None, price: Callable[[], Cost] | None
    ) -> Hold:
        await self._pacer.wait()  # does not suspend: it was ready
        if (hold := self.ledger.reserve_at_once(cost)) is not None:
            now = self.loop.time()
            self._sent(hold, now, now)
            return hold
        return await self._in_line(self._ticket(cost, priority, arrival, price), wait_at_most)

    def _ticket(self, cost: Cost, priority: float, arrival: int, price: Callable[[], Cost] | None) -> Ticket:
        future, now = self.loop.create_future(), self.loop.time()
        if price is None:
            return Ticket(cost, priority, arrival, future, now)
        ticket = PricedTicket(cost, priority, arrival, future, now)
        ticket.price = price
        return ticket

    async def _in_line(self, ticket: Ticket, wait_at_most: float | None) -> Hold:
        self._join(ticket)
        alarm = None if wait_at_most is None else self.loop.call_later(wait_at_most, self._give_up, ticket)
        try:
            return await ticket.future
        except asyncio.CancelledError:
            if ticket.future.cancelled():
                self._leave()
            elif ticket.future.exception() is None:
                self.end(ticket.future.result(), UNSENT, "unsent")
            raise
        finally:
            if alarm:
                alarm.cancel()

    def end(self, hold: Hold, actual: Cost, how: str) -> None:
        """Settle a hold and free its slot."""
        self.ledger.settle(hold, actual, how)
        self.in_flight -= 1
        if how == "used":
            self._scouting.heard(hold)
        else:
            self._scouting.ended(hold, how)
        if Settled in self._audience:
            self._audience.tell(Settled(self.name, self.loop.time(), how, actual.get("tokens", 0)), self.loop)
        self._changed.set()

    def observe(self, hold: Hold, observed: Observed) -> None:
        """Learn from a reply."""
        passed = self._scouting.travelled(way_of(self.ledger.quota, hold, observed, self.loop.time()))
        if self._scouting.heard(hold) or passed:
            self._changed.set()
        self.report(self.ledger.observe(hold, observed))

    def refused(self, hold: Hold, observed: Observed) -> None:
        """Learn from a refusal that a limit was the reason for."""
        self.refusals += 1
        changes = self.ledger.refused(hold, observed)
        if Refused in self._audience:
            named = next((change.limit for change in changes), None)
            self._audience.tell(Refused(self.name, self.loop.time(), named, observed.retry_after), self.loop)
        self.report(changes)

    def cool(self, seconds: float, hold: Hold | None = None) -> None:
        """Send nothing for so long; once for all requests that were on the way together when the first said so."""
        if hold is None or hold.sent_at is None or hold.sent_at > self._cooled_at:
            self._cooled_at = self.loop.time()
            self.ledger.cool(seconds)
            self._changed.set()

    def foremost(self, most: int) -> tuple[float, list[Cost]]:
        """Return the most urgent priority that waits, and what up to `most` of those who have it cost."""
        waiting = [each for each in (self._head, *islice(self._queue, most)) if each and not each.future.done()]
        urgent = min((each.priority for each in waiting), default=0.0)
        return urgent, [each.cost for each in waiting if each.priority == urgent]

    def wake(self) -> None:
        """Ask the ledger again: it may have more than it had."""
        self._changed.set()

    def notice(self, text: str) -> None:
        """Tell whoever watches."""
        self._audience.tell(Notice(self.name, self.loop.time(), text), self.loop)

    def resize(self, concurrency: int) -> None:
        """Allow so many in flight from now on."""
        self.concurrency = concurrency
        self._changed.set()

    def report(self, changes: Sequence[Change]) -> None:
        """Tell whoever watches that limits are not as they were, and ask anew."""
        if changes:
            self._changed.set()
            if Changed in self._audience:
                now = self.loop.time()
                for change in changes:
                    self._audience.tell(Changed(self.name, now, change), self.loop)

    def _is_short(self, cost: Cost, now: float) -> bool:
        """Whether a limit is in the way, which is then what the request waits for, whatever the pace."""
        try:
            return self.ledger.quota.ready_at(cost) > now
        except RateLimitError:  # it will be told so when the ledger is asked
            return True

    def _join(self, ticket: Ticket) -> None:
        self.waiting += 1
        heappush(self._queue, ticket)
        if self._dispatcher is None:
            self._dispatcher = self.loop.create_task(self._dispatch(), name=f"lane {self.name}")
        elif self._queue[0] is ticket and (self._head is None or ticket < self._head):
            self._changed.set()

    def _leave(self) -> None:
        """Somebody in the queue has given up."""
        self.waiting -= 1
        if len(self._queue) > 2 * self.waiting + _LITTER:
            self._queue = [ticket for ticket in self._queue if not ticket.future.done()]
            heapify(self._queue)
        if self._head is None or self._head.future.done():
            self._changed.set()

    def _give_up(self, ticket: Ticket) -> None:
        if not ticket.future.done():
            waited = self.loop.time() - ticket.queued_at
            ticket.future.set_exception(WaitedTooLong(self.name, waited, self.waiting - 1, self.waiting_for))
            self._leave()

    async def _dispatch(self) -> None:
        """Grant turns in order until nobody waits."""
        try:
            while (ticket := self._foremost()) is not None:
                self._changed.clear()
                now = self.loop.time()
                if isinstance(ticket, PricedTicket):
                    ticket.cost = ticket.price()
                if self.in_flight >= self.concurrency:
                    await self._until(None, "concurrency")
                elif self._scouting.waits(now):
                    await self._until(self._scouting.until, "first reply")
                elif self._pacer.ready(self.ledger.quota, ticket.cost, now):
                    await self._pacer.wait()  # does not suspend
                    await self._serve(ticket)
                elif self._is_short(ticket.cost, now):
                    await self._serve(ticket)
                else:
                    self.waiting_for, self.waiting_until = self._waited_for, _ = "pace", None
                    await self._pacer.wait()
        except Exception as error:  # noqa: BLE001 - nobody may wait for a dispatcher that is no more
            self._fail(error)
        finally:
            self._dispatcher = None
            self.waiting_for = self.waiting_until = None

    async def _serve(self, ticket: Ticket) -> None:
        """Grant the head its turn, or sleep until it may be asked for again."""
        try:
            answer = await self.ledger.reserve(ticket.cost)
        except RateLimitError as never:  # a limit has fallen below what this one needs; the next may still fit
            self._head = None
            if not ticket.future.done():
                self.waiting -= 1
                ticket.future.set_exception(never)
            return
        if isinstance(answer, Hold):
            self._grant(ticket, answer)
        else:
            bucket = self.ledger.quota.binding(ticket.cost)
            await self._until(answer, bucket.limit.name if bucket else "quota")

    def _grant(self, ticket: Ticket, hold: Hold) -> None:
        self.waiting_for = self.waiting_until = None
        self._head = None
        if ticket.future.done():  # it gave up while a ledger elsewhere was asked
            self.ledger.settle(hold, UNSENT, "unsent")
            return
        self.waiting -= 1
        ticket.future.set_result(hold)
        self._sent(hold, ticket.queued_at, self.loop.time())

    def _sent(self, hold: Hold, queued_at: float, now: float) -> None:
        self.in_flight += 1
        self._pacer.spend(hold.cost, now)
        self._scouting.sent(hold, self.ledger.quota, now, ahead=self.ledger.sent(hold))
        if Granted in self._audience:
            waited_for = self._waited_for if now > queued_at else None
            tokens = hold.cost.get("tokens", 0)
            self._audience.tell(Granted(self.name, now, now - queued_at, tokens, waited_for), self.loop)

    async def _until(self, moment: float | None, reason: str) -> None:
        """Sleep until `moment` or until something changes."""
        if (reason, moment) != (self.waiting_for, self.waiting_until):
            self._note_wait(reason, moment)
        self.waiting_for, self.waiting_until = self._waited_for, _ = reason, moment
        alarm = None if moment is None else self.loop.call_at(moment, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if alarm:
                alarm.cancel()

    def _note_wait(self, reason: str, moment: float | None) -> None:
        now = self.loop.time()
        if Waiting in self._audience:
            self._audience.tell(Waiting(self.name, now, reason, now if moment is None else moment), self.loop)
        if moment is not None and moment - now > _LONG and Paused in self._audience:
            self._audience.tell(Paused(self.name, now, reason, moment), self.loop)

    def _foremost(self) -> Ticket | None:
        """Return who goes next: the head, unless it has given up or somebody more urgent has come."""
        head, queue = self._head, self._queue
        if head is not None and not head.future.done():
            if queue and queue[0] < head:
                head = heappushpop(queue, head)
        else:
            head = heappop(queue) if queue else None
        while head is not None and head.future.done():
            head = heappop(queue) if queue else None
        self._head = head
        return head

    def _fail(self, error: Exception) -> None:
        head, queue, self._head, self._queue = self._head, self._queue, None, []
        for ticket in [head, *queue] if head else queue:
            if not ticket.future.done():
                self.waiting -= 1
                ticket.future.set_exception(error)

    def __repr__(self) -> str:
        return f"<Lane {self.name}: {self.status()}>"

    def status(self) -> str:
        """Return in one line who waits, and for what."""
        text = f"{self.waiting} waiting, {self.in_flight} in flight"
        if self.waiting and self.waiting_for:
            if self.waiting_until is None:
                return f"{text}, next when a slot is free" if self.waiting_for == "concurrency" else text
            return f"{text}, next in {max(self.waiting_until - self.loop.time(), 0):.2f}s ({self.waiting_for})"
        return text
