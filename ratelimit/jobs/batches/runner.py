"""Runs a job through the Batch API: fills the queues, follows every batch to its end, and merges what comes.

Whatever interrupts a run, nothing is lost: what is enqueued is in the ledger, and goes on at the service; the next run
finds it there. A row is in one batch at a time. It leaves it with a result, with a failure, or to be enqueued again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress

from ratelimit.errors import RateLimitError, RequestFailed
from ratelimit.jobs import records
from ratelimit.jobs.batches.api import Api, Batch
from ratelimit.jobs.batches.backlog import Backlog
from ratelimit.jobs.batches.collecting import Collector
from ratelimit.jobs.batches.following import Flight, Follower, Places
from ratelimit.jobs.batches.intake import look_through, take_in
from ratelimit.jobs.batches.ledger import Ledger
from ratelimit.jobs.batches.live import Live
from ratelimit.jobs.batches.packing import fill
from ratelimit.jobs.batches.queue import Queue
from ratelimit.jobs.batches.rejection import queue_full, to_blame
from ratelimit.jobs.batches.sharing import LOOK_EVERY, Sharing
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.budget import Options, Stopped
from ratelimit.jobs.figures import counted, duration
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.preflight import Findings
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import Table
from ratelimit.wire.client import Client

_HOUR = 3600.0
_MOST_CREATED = 1900  # an hour, of the 2,000 that the service allows
_TRANSFERS = 4
_TRIES = 3  # of a row whose failure may pass


class Runner:
    """One run of a job through the Batch API."""

    def __init__(
        self,
        api: Api,
        source: Source,
        spool: Spool,
        *,
        table: Table,
        tier: str,
        journal: Journal,
        ledger: Ledger,
        options: Options,
        say: Callable[[str], None],
        keep_files: bool = False,
        cancelling: bool = False,
        client: Client | None = None,
        due: float | None = None,
    ) -> None:
        self.tally: Tally = Tally(table)
        self.stopped: RateLimitError | None = None
        self._api = api
        self._source = source
        self._spool = spool
        self._table = table
        self._journal = journal
        self._ledger = ledger
        self._options = options
        self._say = say
        self._cancelling = cancelling
        self._collector = Collector(api, journal, self.tally, table, say)
        self._flights: set[Flight] = set()
        self._tries: Counter[int] = Counter()
        self._created: deque[float] = deque()
        self._transfers = asyncio.Semaphore(_TRANSFERS)
        self._changed = asyncio.Event()
        self._follower = Follower(
            api,
            spool,
            ledger,
            self.tally,
            transfers=self._transfers,
            changed=self._changed,
            say=say,
            keep_files=keep_files,
        )
        self._backlog = Backlog(
            spool, table, tier, created=self._created, refuse=self._refuse, say=say, both_routes=client is not None
        )
        self._live: Live | None = None
        self._sharing: Sharing | None = None
        if client and due is not None:
            self._live = Live(
                client, spool, journal, tally=self.tally, table=table, changed=self._changed, stop=self.stop
            )
            self._sharing = Sharing(self._live, spool, due=due, recall=self._call_back, say=say)
        self._tasks = asyncio.TaskGroup()
        self._stopping = False
        self._work: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Go on until every row is dealt with, or something stops the run."""
        loop = asyncio.get_running_loop()
        deadline = self._options.deadline
        why = Stopped(f"the deadline of {duration(deadline)} has passed; run again for the rest") if deadline else None
        timer = loop.call_later(deadline, self.stop, why) if deadline and why else None
        self._work = asyncio.create_task(self._go())
        try:
            await self._work
        except asyncio.CancelledError:
            if not self._stopping:
                self._work.cancel()
                with suppress(asyncio.CancelledError):
                    await self._work
                raise
        finally:
            if timer:
                timer.cancel()
            if self._live:
                await self._live.end(in_order=self._stopping)
            self.tally.end(loop.time())

    def stop(self, why: RateLimitError) -> None:
        """Do nothing new; what is enqueued goes on at the service, and what is on its way is waited for."""
        if not self._stopping and self._work:
            self._halt(why)
            self._work.cancel()
            if left := len(self._ledger.open):
                self._say(f"{counted(left, 'batch')} under way at the service; the same command collects the answers")

    def leave(self) -> None:
        """Wait for nothing any more."""
        if self._live:
            self._live.flights.leave()

    def _halt(self, why: RateLimitError) -> None:
        self._stopping, self.stopped = True, why
        if self._live:
            self._live.flights.stop(why)

    async def _go(self) -> None:
        clock = asyncio.get_running_loop().time
        found = Findings(looked=False)
        if not self._cancelling:
            found = await look_through(self._source, self._lane_of, self._journal, self._options, self.tally)
        self.tally.start(found, clock())
        wall = time.time()
        self._created.extend(sorted(clock() - max(wall - at, 0.0) for at in self._ledger.created))
        await self._follower.settle()
        adopted = self._adopted(clock() - wall)
        if not self._cancelling:
            await self._take_in(found, adopted)
        async with self._live.going_on() if self._live else nullcontext():
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    for flight in adopted:
                        self._launch(flight)
                    await self._keep_filled()
            except* RateLimitError as group:
                self._halt(_first(group))
        if not self._stopping:
            await self._follower.sweep()

    def _lane_of(self, row: Row) -> tuple[str, float]:
        model = self._table.find(row.request().model)
        self._backlog.queue(model.name)
        return model.name, 0

    def _adopted(self, offset: float) -> list[Flight]:
        """Return what goes on at the service."""
        flights = []
        for about in self._ledger.open:
            flight = Flight(about, self._backlog.queue(about.lane), checked=True, since=about.at + offset)
            flight.queue.enqueued += about.tokens
            flight.queue.under_way += about.rows
            flights.append(flight)
        return flights

    async def _take_in(self, found: Findings, adopted: list[Flight]) -> None:
        def give_up(row: Row, error: RateLimitError) -> None:
            self._give_up(row.key, records.gave_up(row, error), records.code_of(error))

        left = await take_in(
            self._source,
            self._spool,
            self._journal,
            found,
            adopted,
            check=self._lane_of,
            limit=self._options.limit,
            give_up=give_up,
        )
        for number, places in enumerate(left):
            self._backlog.wait(number, places)

    async def _keep_filled(self) -> None:
        clock, queues = asyncio.get_running_loop().time, self._backlog.queues
        while True:
            self._changed.clear()
            if self._sharing:
                for queue in self._backlog.queues.values():
                    self._sharing.share(queue, self._flights, clock())
            self._fill(clock())
            if self._backlog.empty and not self._flights and not (self._live and len(self._live.flights)):
                return
            wake = [queue.closed_until for queue in queues.values() if queue.closed_until > clock()]
            if len(self._created) >= _MOST_CREATED:
                wake.append(self._created[0] + _HOUR)
            if self._sharing:
                wake.append(clock() + LOOK_EVERY)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(wake, default=None)):
                    await self._changed.wait()

    def _fill(self, now: float) -> None:
        while self._created and self._created[0] <= now - _HOUR:
            self._created.popleft()
        for queue in self._backlog.queues.values():
            most = min(queue.open_to(now), _MOST_CREATED - len(self._created))
            if not queue.waiting or most <= 0:
                continue
            for piece in fill(queue.waiting, queue.room, self._spool.groups, most=int(most), least=queue.least):
                group = self._spool.groups[piece.group]
                places = Places.of(piece, (group.keys[place] for place in piece.rows))
                about = self._ledger.intend(group.lane, group.endpoint, piece.tokens, places.keys)
                queue.enqueued += piece.tokens
                queue.under_way += about.rows
                queue.unchecked += 1
                self._created.append(now)
                self._launch(Flight(about, queue, piece, places, since=now))

    def _launch(self, flight: Flight) -> None:
        self._flights.add(flight)
        self._tasks.create_task(self._follow(flight))

    async def _follow(self, flight: Flight) -> None:
        """See one batch from its intent to its end."""
        about = flight.about
        if flight.piece and about.batch is None:
            await self._follower.begin(flight, flight.piece)
        if self._cancelling or about.recalled:
            flight.called_back = asyncio.get_running_loop().time()
            await self._api.cancel(about.batch or "")
        batch = await self._follower.until_over(flight)
        self._free(flight)
        if batch is None:
            self._ledger.over(about, "lost")
            self._again(flight)
        elif batch.status == "failed":
            self._journal.sync()
            self._follower.over(about, batch)
            self._rejected(flight, batch)
            await self._follower.clean(about)
        else:
            async with self._transfers:
                collected = await self._collector.collect(batch, about, now=asyncio.get_running_loop().time())
            for key, record, code in collected.failures:
                self._tries[key] += 1
                if self._tries[key] >= _TRIES:
                    self._give_up(key, record, code)
            if flight.piece:
                self.tally.attempts += collected.executed - flight.sent
            self._journal.sync()
            self._follower.over(about, batch, answered=collected.answered, whole=collected.whole)
            self._again(flight)
            await self._follower.clean(about)
        self._flights.discard(flight)
        self._changed.set()

    def _free(self, flight: Flight) -> None:
        if not flight.freed:
            flight.freed = True
            flight.queue.enqueued -= flight.about.tokens
            flight.queue.under_way -= flight.about.rows
            if not flight.checked:
                flight.checked = True
                flight.queue.unchecked -= 1
            self._changed.set()

    def _rejected(self, flight: Flight, batch: Batch) -> None:
        """See to the rows of a batch that has failed validation."""
        now, problems = asyncio.get_running_loop().time(), batch.problems
        if queue_full(problems):
            flight.queue.refused(now)
            self._backlog.learn(flight.queue, problems)
            pause = flight.queue.closed_until - now
            self._say(f"the batch queue of {flight.queue.lane} is full at the service; trying again in {pause:,.0f} s")
            self._again(flight)
            return
        bad = to_blame(problems, flight.about.keys)
        self._say(f"batch {batch.id} has failed validation; {len(bad):,} of its rows are bad")
        for key, group, place in flight.places.take(bad):
            code = bad[key].code or "failed"
            self._backlog.turn_down(group, {place: RequestFailed(400, code, bad[key].message or code)})
        self._again(flight)

    def _again(self, flight: Flight) -> None:
        """Have what a batch has not answered wait anew."""
        if not self._cancelling:
            self._backlog.again((group, place) for key, group, place in flight.places if key not in self._journal.done)

    def _refuse(self, group: int, place: int, error: RateLimitError) -> None:
        row = self._spool.row(group, place)
        self._give_up(row.key, records.gave_up(row, error), records.code_of(error))

    def _call_back(self, flight: Flight) -> None:
        """Have a batch cancelled: its rows are free once it is over, and what it has answered is on disk."""
        flight.called_back = asyncio.get_running_loop().time()
        self._ledger.recall(flight.about)
        self._tasks.create_task(self._api.cancel(flight.about.batch or ""))

    def _give_up(self, key: int, record: bytes, code: str) -> None:
        if self._journal.done.add(key):
            self._journal.gave_up(record)
            self.tally.gave_up(code, asyncio.get_running_loop().time())

    @property
    def queues(self) -> Collection[Queue]:
        """The batch queue of every lane."""
        return self._backlog.queues.values()

    def standing(self) -> str:
        """Return how the batches stand, in one line."""
        enqueued = ", ".join(
            f"{queue.lane} {queue.enqueued:,}" + (f" of {queue.limit:,.0f}" if queue.limit < float("inf") else "")
            for queue in self._backlog.queues.values()
            if queue.enqueued
        )
        share = f"{self.tally.batched:,} answers by batch, " if self._live else ""
        recalled = sum(flight.called_back < math.inf for flight in self._flights)
        ending = f", {recalled:,} being cancelled" if recalled else ""
        if overdue := sum(flight.overdue(asyncio.get_running_loop().time()) for flight in self._flights):
            ending += f" ({overdue:,} should be over)"
        return f"{share}{counted(len(self._flights), 'batch')}{ending}; tokens enqueued: {enqueued or 'none'}"


def _first(group: BaseExceptionGroup[RateLimitError]) -> RateLimitError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group of no errors")
