"""Runs a job through the Batch API: fills the queues, follows every batch to its end, and merges what comes.

Whatever interrupts a run, nothing is lost: what is enqueued is in the ledger, and goes on at the service; the next run
finds it there. A row is in one batch at a time. It leaves it with a result, with a failure, or to be enqueued again.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from ratelimit.errors import NeverFits, RateLimitError, RequestFailed, RequestInvalid
from ratelimit.jobs import records
from ratelimit.jobs.batches.api import Api, Batch, Problem
from ratelimit.jobs.batches.collecting import Collector
from ratelimit.jobs.batches.following import Flight, Follower
from ratelimit.jobs.batches.ledger import Ledger
from ratelimit.jobs.batches.packing import Caps, cut, fill
from ratelimit.jobs.batches.queue import Queue, parts, told_limit
from ratelimit.jobs.batches.rejection import queue_full, to_blame
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.budget import Options, Stopped
from ratelimit.jobs.feeding import rows
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.preflight import Findings, InputRefused, preflight
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import Table

_HOUR = 3600.0
_MOST_CREATED = 1900  # an hour, of the 2,000 that the service allows
_TRANSFERS = 4
_TRIES = 3  # of a row whose failure may pass
_TELL_EVERY = 10.0


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
    ) -> None:
        self.tally = Tally(table)
        self.stopped: RateLimitError | None = None
        self.queues: dict[str, Queue] = {}
        self._api = api
        self._source = source
        self._spool = spool
        self._table = table
        self._tier = tier
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
        self._stopping = False
        self._work: asyncio.Task[None] | None = None
        self._told_at = 0.0

    async def run(self) -> Tally:
        """Go on until every row is dealt with, or something stops the run."""
        loop = asyncio.get_running_loop()
        deadline = self._options.deadline
        why = Stopped(f"the deadline of {deadline:g} s has passed; run again for the rest") if deadline else None
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
            self.tally.end(loop.time())
        return self.tally

    def stop(self, why: RateLimitError) -> None:
        """Do nothing new; what is enqueued goes on at the service."""
        if not self._stopping and self._work:
            self._stopping, self.stopped = True, why
            self._work.cancel()
            if left := len(self._ledger.open):
                self._say(f"{left:,} batches go on at the service; the same command collects what they answer")

    def leave(self) -> None:
        """Nothing is waited for anyway."""

    async def _go(self) -> None:
        clock = asyncio.get_running_loop().time
        found = Findings() if self._cancelling else await self._look_through()
        self.tally.start(found, clock())
        wall = time.time()
        self._created.extend(sorted(clock() - max(wall - at, 0.0) for at in self._ledger.created))
        await self._follower.settle()
        adopted = self._adopted()
        if not self._cancelling:
            await self._take_in(found, adopted)
        try:
            async with asyncio.TaskGroup() as tasks:
                for flight in adopted:
                    self._launch(tasks, flight)
                await self._keep_filled(tasks)
        except* RateLimitError as group:
            self._stopping, self.stopped = True, _first(group)
        if not self._stopping:
            await self._follower.sweep()

    async def _look_through(self) -> Findings:
        found = Findings()
        for found in preflight(self._source, self._lane_of, self._journal, force=self._options.force):
            self.tally.looked_at = found.rows
            await asyncio.sleep(0)
        if found.problems and not self._options.skip_bad:
            raise InputRefused(self._source.path, found)
        return found

    def _lane_of(self, row: Row) -> tuple[str, float]:
        model = self._table.find(row.request().model)
        self._queue(model.name)
        return model.name, 0

    def _queue(self, lane: str) -> Queue:
        if lane not in self.queues:
            limit = self._table.on(lane, self._tier).batch_queue
            self.queues[lane] = Queue(lane, float("inf") if limit is None else limit)
        return self.queues[lane]

    def _adopted(self) -> list[Flight]:
        """Return what goes on at the service."""
        flights = []
        for about in self._ledger.open:
            flight = Flight(about, self._queue(about.lane), checked=True)
            flight.queue.enqueued += about.tokens
            flights.append(flight)
        return flights

    async def _take_in(self, found: Findings, adopted: list[Flight]) -> None:
        """Put every row that is left into the spool, and those that are in no batch into pieces."""
        flights = {key: flight for flight in adopted for key in flight.about.keys}
        left: list[array[int]] = []
        taken = 0
        async for row in rows(self._source):
            if row.number in found.twins:
                row = replace(row, id=f"line-{row.number}")  # noqa: PLW2901 - a twin goes by another name
            if self._journal.is_done(row):
                continue
            try:
                problem = row.problem or found.problems.get(row.number)
                if problem:
                    raise RequestInvalid(problem, "mend this line of the input")
                flight = flights.get(row.key)
                if flight is None and self._options.limit is not None and taken >= self._options.limit:
                    continue
                group, place = self._spool.add(row)
            except RateLimitError as error:
                self._give_up(row.key, records.gave_up(row, error), records.code_of(error))
                continue
            if flight:
                flight.places[row.key] = group, place
                continue
            taken += 1
            while len(left) <= group:
                left.append(array("Q"))
            left[group].append(place)
        for number, places in enumerate(left):
            self._wait(number, places)

    def _wait(self, number: int, places: Sequence[int]) -> None:
        group = self._spool.groups[number]
        queue = self._queue(group.lane)
        for place in [place for place in places if group.tokens[place] > queue.limit]:
            error = NeverFits(f"the batch queue of {group.lane}", group.tokens[place], queue.limit)
            row = self._spool.row(number, place)
            self._give_up(row.key, records.gave_up(row, error), records.code_of(error))
        places = [place for place in places if group.tokens[place] <= queue.limit]
        total = queue.enqueued + sum(piece.tokens for piece in queue.waiting)
        total += sum(group.tokens[place] for place in places)
        size = parts(queue.limit, total, len(self._created))
        queue.waiting += cut(number, places, group, Caps(tokens=size))

    async def _keep_filled(self, tasks: asyncio.TaskGroup) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            self._fill(tasks, clock())
            waiting = any(queue.waiting for queue in self.queues.values())
            if not waiting and not self._flights:
                return
            self._tell(clock())
            wake = [queue.closed_until for queue in self.queues.values() if queue.closed_until > clock()]
            if waiting and len(self._created) >= _MOST_CREATED:
                wake.append(self._created[0] + _HOUR)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(wake, default=None)):
                    await self._changed.wait()

    def _fill(self, tasks: asyncio.TaskGroup, now: float) -> None:
        while self._created and self._created[0] <= now - _HOUR:
            self._created.popleft()
        for queue in self.queues.values():
            most = min(queue.open_to(now), _MOST_CREATED - len(self._created))
            if not queue.waiting or most <= 0:
                continue
            for piece in fill(queue.waiting, queue.room, self._spool.groups, most=int(most), least=queue.least):
                group = self._spool.groups[piece.group]
                keys = [group.keys[place] for place in piece.rows]
                about = self._ledger.intend(group.lane, group.endpoint, piece.tokens, keys)
                places = {key: (piece.group, place) for key, place in zip(keys, piece.rows, strict=True)}
                queue.enqueued += piece.tokens
                queue.unchecked += 1
                self._created.append(now)
                self._launch(tasks, Flight(about, queue, piece, places))

    def _launch(self, tasks: asyncio.TaskGroup, flight: Flight) -> None:
        self._flights.add(flight)
        tasks.create_task(self._follow(flight))

    async def _follow(self, flight: Flight) -> None:
        """See one batch from its intent to its end."""
        about = flight.about
        if flight.piece and about.batch is None:
            await self._follower.begin(flight, flight.piece)
        if self._cancelling:
            await self._api.cancel(about.batch or "")
        batch = await self._follower.until_over(flight)
        self._free(flight)
        if batch is None:
            self._again(flight.places.keys(), flight)
            self._ledger.over(about, "lost")
        elif batch.status == "failed":
            self._rejected(flight, batch)
            self._ledger.over(about, "failed")
            await self._follower.clean(batch)
        else:
            async with self._transfers:
                collected = await self._collector.collect(batch, about, now=asyncio.get_running_loop().time())
            for key, record, code in collected.failures:
                self._tries[key] += 1
                if self._tries[key] >= _TRIES:
                    self._give_up(key, record, code)
            self._again([key for key in flight.places if key not in self._journal.done], flight)
            self._journal.sync()
            self._ledger.over(about, batch.status, collected.answered)
            if collected.whole:
                await self._follower.clean(batch)
        self._flights.discard(flight)
        self._changed.set()

    def _free(self, flight: Flight) -> None:
        if not flight.freed:
            flight.freed = True
            flight.queue.enqueued -= flight.about.tokens
            if not flight.checked:
                flight.checked = True
                flight.queue.unchecked -= 1
            self._changed.set()

    def _rejected(self, flight: Flight, batch: Batch) -> None:
        """See to the rows of a batch that has failed validation."""
        now, problems = asyncio.get_running_loop().time(), batch.problems
        if queue_full(problems):
            flight.queue.refused(now)
            self._learn(flight.queue, problems)
            pause = flight.queue.closed_until - now
            self._say(f"the batch queue of {flight.queue.lane} is full at the service; trying again in {pause:.0f} s")
            self._again(flight.places, flight)
            return
        bad = to_blame(problems, flight.about.keys)
        self._say(f"batch {batch.id} has failed validation; {len(bad):,} of its rows are bad")
        for key, problem in bad.items():
            if key in flight.places:
                code = problem.code or "failed"
                row = self._spool.row(*flight.places[key])
                self._give_up(key, records.gave_up(row, RequestFailed(400, code, problem.message or code)), code)
        self._again(flight.places, flight)

    def _learn(self, queue: Queue, problems: Sequence[Problem]) -> None:
        """Go by the limit that a refusal names, where it is lower than the table's."""
        for problem in problems:
            if (limit := told_limit(problem.message or "")) is not None and limit < queue.limit:
                self._say(
                    f"the batch queue of {queue.lane} holds {limit:,} tokens, not {queue.limit:,.0f}: going by that"
                )
                queue.limit = limit
                waiting, queue.waiting = queue.waiting, []
                for piece in waiting:
                    self._wait(piece.group, piece.rows)

    def _again(self, keys: Iterable[int], flight: Flight) -> None:
        """Have rows enqueued again."""
        groups: dict[int, list[int]] = {}
        for key in keys:
            if key not in self._journal.done and key in flight.places:
                group, place = flight.places[key]
                groups.setdefault(group, []).append(place)
        for group, places in groups.items():
            if not self._cancelling:
                self._wait(group, places)

    def _give_up(self, key: int, record: bytes, code: str) -> None:
        if self._journal.done.add(key):
            self._journal.gave_up(record)
            self.tally.gave_up(code, asyncio.get_running_loop().time())

    def _tell(self, now: float) -> None:
        if now - self._told_at < _TELL_EVERY or not self._flights:
            return
        self._told_at = now
        enqueued = ", ".join(
            f"{queue.lane} {queue.enqueued:,}" + (f" of {queue.limit:,.0f}" if queue.limit < float("inf") else "")
            for queue in self.queues.values()
            if queue.enqueued
        )
        left = f", {self.tally.left:,} left" if self.tally.left else ""
        self._say(f"{self.tally.answers:,} answered{left}; {len(self._flights):,} batches; tokens enqueued: {enqueued}")


def _first(group: BaseExceptionGroup[RateLimitError]) -> RateLimitError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group of no errors")
