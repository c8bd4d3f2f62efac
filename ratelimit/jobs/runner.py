"""Runs a job: every row that is not done is sent, and what came of it is written down.

Each lane has a feeder of its own that reads the input and takes its own rows from it, so a file sorted by model keeps
every model's limits busy. A row exists from when there is room for it to when its line is written; memory does not grow
with the file.

A run stops early for one of a few reasons (a signal, the key, the credits, a budget, a deadline). Then nothing new is
sent, what waits for its turn is dropped untouched, and what is on its way is waited for, within bounds, because it is
paid for. The rest is for the next run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ratelimit.errors import JobStopped, OutputFailed, RateLimitError, RequestInvalid
from ratelimit.jobs import records
from ratelimit.jobs.journal import Checked, Journal
from ratelimit.jobs.preflight import Findings, InputRefused, preflight
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import Table
from ratelimit.wire.client import Client
from ratelimit.wire.messages import Reply

_SYNC_EVERY = 0.5  # seconds
_SPENT_EVERY = 10.0
_MOST_FEEDERS = 16  # each reads the input once more


@dataclass(frozen=True, slots=True)
class Options:
    """What a job is asked to do beside sending everything."""

    limit: int | None = None  # rows to send at most, for a smoke test
    max_cost: float | None = None
    max_requests: int | None = None
    deadline: float | None = None
    skip_bad: bool = False
    check: bool = True
    force: bool = False
    pause_at_daily_limit: bool = False
    concurrency: int = 1000
    drain: float = 30.0


class Stopped(JobStopped):
    """The run was stopped with work left; the same command continues it."""


@dataclass(slots=True, eq=False)
class _Flight:
    row: Row
    task: asyncio.Task[None] = field(init=False)
    sent: bool = False


class Runner:
    """One run of a job."""

    def __init__(
        self, client: Client, source: Source, *, table: Table, journal: Journal | None, options: Options
    ) -> None:
        self.tally = Tally(table)
        self.stopped: RateLimitError | None = None
        self._sender = client.sender
        self._transport = client.transport
        self._table = table
        self._source = source
        self._journal = journal
        self._options = options
        self._write: Callable[[bytes], None] = journal.answered if journal else _to_stdout
        self._room = asyncio.Semaphore(options.concurrency)
        self._flights: set[_Flight] = set()
        self._stopping = asyncio.Event()
        self._started = 0

    async def run(self) -> Tally:
        """Send every row that is left; returns what came of it, whether it got to the end or was stopped."""
        found = await self._look_through()
        self.tally.start(found, asyncio.get_running_loop().time())
        chores = [asyncio.create_task(self._sync()), asyncio.create_task(self._watch())]
        try:
            await self._feed_all(found)
            await self._land()
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            self._note_spent()
            self.tally.end(asyncio.get_running_loop().time())
        return self.tally

    def stop(self, why: RateLimitError) -> None:
        """Send nothing new from now on; what waits is dropped, what is on its way is waited for."""
        if self._stopping.is_set():
            return
        self.stopped = why
        self._stopping.set()
        for flight in self._flights:
            if not flight.sent:
                flight.task.cancel()

    def leave(self) -> None:
        """Wait for nothing any more."""
        for flight in self._flights:
            flight.task.cancel()

    async def _look_through(self) -> Findings:
        journal, options = self._journal, self._options
        known = journal.checked if journal and not options.force else None
        if not options.check or not self._source.rereadable:
            return Findings()
        size, modified = self._source.state()
        if known and journal and (known.size, known.modified) == (size, modified):
            return Findings(rows=known.rows, done=len(journal.done), lanes=dict.fromkeys(known.models, 0))
        found = Findings()
        for found in preflight(self._source, self._lane_of, journal, force=options.force):
            self.tally.looked_at = found.rows
            await asyncio.sleep(0)
        if found.problems and not options.skip_bad:
            raise InputRefused(self._source.path, found)
        if journal and not found.problems:
            journal.note_checked(Checked(size, modified, found.rows, tuple(found.lanes)))
        return found

    def _lane_of(self, row: Row) -> str:
        made = row.request()
        return self._sender.gate.turn(made.fields, made.path).asked.model.name

    async def _feed_all(self, found: Findings) -> None:
        lanes = list(found.lanes)
        if not 1 < len(lanes) <= _MOST_FEEDERS:
            await self._feed(None, found, first=True)
            return
        feeders = [asyncio.create_task(self._feed(lane, found, first=lane == lanes[0])) for lane in lanes]
        try:
            await asyncio.gather(*feeders)
        finally:
            for feeder in feeders:
                feeder.cancel()

    async def _feed(self, lane: str | None, found: Findings, *, first: bool) -> None:
        """Send the rows of one lane, or of all; the first feeder also takes those that belong to none."""
        for number, row in enumerate(self._rows()):
            if number % 500 == 0:
                await asyncio.sleep(0)
            if self._stopping.is_set():
                return
            if self._journal and self._journal.is_done(row):
                continue
            problem = row.problem or found.problems.get(row.number)
            if problem:
                if first:
                    self._give_up(row, RequestInvalid(problem, "mend this line of the input"))
                continue
            if lane is not None and self._family(row) != lane:
                continue
            await self._room.acquire()
            if self._stopping.is_set() or self._exhausted():
                self._room.release()
                return
            self._launch(row)

    def _rows(self) -> Iterator[Row]:
        return self._source.rows()

    def _family(self, row: Row) -> str | None:
        try:
            return self._table.find(row.request().model).name
        except RateLimitError:
            return None

    def _exhausted(self) -> bool:
        options = self._options
        if options.limit is not None and self._started >= options.limit:
            return True
        if options.max_requests is not None and self._started >= options.max_requests:
            self.stop(Stopped(f"the run has sent its {options.max_requests:,} requests; run again for the rest"))
        elif options.max_cost is not None and self.tally.cost_if_all_land(len(self._flights)) >= options.max_cost:
            self.stop(
                Stopped(
                    f"the run has spent ${self.tally.cost:.4f} of the ${options.max_cost:g} it may; "
                    f"raise --max-cost and run again for the rest"
                )
            )
        return self._stopping.is_set()

    def _launch(self, row: Row) -> None:
        self._started += 1
        flight = _Flight(row)
        self._flights.add(flight)
        flight.task = asyncio.create_task(self._fly(flight), name="row")
        flight.task.add_done_callback(lambda _: self._landed(flight))

    def _landed(self, flight: _Flight) -> None:
        self._flights.discard(flight)
        self._room.release()

    async def _fly(self, flight: _Flight) -> None:
        row, clock = flight.row, asyncio.get_running_loop().time
        began = clock()

        try:
            made = row.request()

            async def exchange() -> Reply:
                if self._journal:
                    self._journal.sending(row)
                flight.sent = True
                self.tally.sent(clock())
                return await self._transport.post(made)

            reply = await self._sender.send(made, exchange)
            self._write(records.answered(row, reply))
            self.tally.answered(made.model, reply, began, clock())
        except JobStopped as stopped:
            self.stop(stopped)
        except RateLimitError as error:
            self._give_up(row, error)

    def _give_up(self, row: Row, error: RateLimitError) -> None:
        try:
            if self._journal:
                self._journal.gave_up(records.gave_up(row, error))
            self.tally.gave_up(records.code_of(error))
        except OutputFailed as failed:
            self.stop(failed)

    async def _land(self) -> None:
        """Wait for what is on its way: for all of it, or within bounds once the run is stopping."""
        while self._flights and not self._stopping.is_set():
            stopping = asyncio.create_task(self._stopping.wait())
            tasks = {flight.task for flight in self._flights}
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        tasks = {flight.task for flight in self._flights}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._options.drain)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _sync(self) -> None:
        """Sync what was written, and note what was spent, every so often."""
        noted = time.time()
        while self._journal:
            await asyncio.sleep(_SYNC_EVERY)
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._journal.sync)
                if time.time() - noted >= _SPENT_EVERY:
                    noted = time.time()
                    self._note_spent()
            except OutputFailed as failed:
                self.stop(failed)

    async def _watch(self) -> None:
        """Note what is waited for; stop at the deadline, or at a day's limit where the run is not to wait for more."""
        options, clock = self._options, asyncio.get_running_loop().time
        end = None if options.deadline is None else clock() + options.deadline
        while True:
            await asyncio.sleep(1.0 if end is None else min(max(end - clock(), 0.01), 1.0))
            if end is not None and clock() >= end:
                self.stop(Stopped(f"the deadline of {options.deadline:g} s has passed; run again for the rest"))
            for lane in self._sender.gate.scheduler.snapshot():
                if lane.waiting_for:
                    self.tally.waited[lane.waiting_for] += 1
                if options.pause_at_daily_limit and lane.waiting_for in {"RPD", "TPD"}:
                    self.stop(Stopped(f"the daily limit of {lane.name} is reached; run again tomorrow for the rest"))

    def _note_spent(self) -> None:
        spent = self._sender.gate.scheduler.spent()
        if self._journal and spent:
            try:
                self._journal.note_spent(spent, time.time())
            except OutputFailed as failed:
                self.stop(failed)


def _to_stdout(record: bytes) -> None:
    import sys  # noqa: PLC0415

    sys.stdout.buffer.write(record + b"\n")
    sys.stdout.buffer.flush()
