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
import os
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from ratelimit.errors import JobStopped, OutputFailed, RateLimitError, RequestInvalid
from ratelimit.jobs import records
from ratelimit.jobs.budget import Budget, Options, Stopped
from ratelimit.jobs.chores import Chores
from ratelimit.jobs.days import foretell
from ratelimit.jobs.feeding import Room, rows
from ratelimit.jobs.journal import Checked, Digests, Journal
from ratelimit.jobs.preflight import Findings, InputRefused, preflight
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import Table
from ratelimit.wire.client import Client
from ratelimit.wire.messages import Reply, Request
from ratelimit.wire.transport import NoAnswer, Unsent

_MOST_FEEDERS = 16  # each reads the input once more
_NOT_BILLED = {401, 403, 429}
_WORTH_ANOTHER = {408, 409, 429}

Say = Callable[[str], None]
"""Tells the person at the terminal something, in one line."""


@dataclass(slots=True, eq=False)
class _Flight:
    """A row that is being dealt with."""

    row: Row
    feeder: int
    worst: float  # dollars it may cost
    task: asyncio.Task[None] = field(init=False)
    sent: bool = False
    on_the_way: bool = False
    in_doubt: bool = False  # it may have been billed without our having the answer


class Runner:
    """One run of a job."""

    def __init__(
        self,
        client: Client,
        source: Source,
        *,
        table: Table,
        journal: Journal | None,
        options: Options,
        setup: int = 0,
        say: Say | None = None,
        retry_failed: bool = False,
    ) -> None:
        self.tally = Tally(table)
        self.stopped: RateLimitError | None = None
        self._sender = client.sender
        self._transport = client.transport
        self._table = table
        self._source = source
        self._journal = journal
        self._options = options
        self._setup = setup  # a number that changes when limits do, so that the input is looked through anew
        self._say = say
        self._retry_failed = retry_failed
        self._write: Callable[[bytes], None] = journal.answered if journal else _to_stdout
        self._budget = Budget(options, self.tally, table)
        self._flights: set[_Flight] = set()
        self._feeders: list[asyncio.Task[None]] = []
        self._lanes: dict[bytes, str | None] = {}
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()  # a row has landed, or the run is stopping
        self._broken: BaseException | None = None

    async def run(self) -> Tally:
        """Send every row that is left; returns what came of it, whether it got to the end or was stopped."""
        clock = asyncio.get_running_loop().time
        found = await self._look_through()
        self.tally.start(found, clock())
        if self._stopping.is_set():
            self.tally.end(clock())
            return self.tally
        if self._journal and self._retry_failed:
            self._journal.forget_failures()
        self._foretell(found)
        scheduler = self._sender.gate.scheduler
        try:
            async with Chores(self._journal, scheduler, self.tally, self._options, self.stop).going_on():
                await self._feed_all(found)
                await self._land()
        finally:
            self.tally.end(clock())
        if self._broken:
            raise self._broken
        self.stopped = self.stopped or self._budget.used_up
        return self.tally

    def stop(self, why: RateLimitError) -> None:
        """Send nothing new from now on; what waits is dropped, what is on its way is waited for."""
        if self._stopping.is_set():
            return
        self.stopped = why
        self._stopping.set()
        self._changed.set()
        for feeder in self._feeders:
            feeder.cancel()
        for flight in self._flights:
            if not flight.on_the_way:
                flight.task.cancel()

    def leave(self) -> None:
        """Wait for nothing any more."""
        for flight in self._flights:
            flight.task.cancel()

    async def _look_through(self) -> Findings:
        journal, options = self._journal, self._options
        if not options.check or not self._source.rereadable:
            return Findings()
        size, modified = self._source.state()
        known = journal.checked if journal else None
        if journal and known and (known.setup, known.size, known.modified) == (self._setup, size, modified):
            return Findings(rows=known.rows, done=len(journal.done), lanes=known.lanes)
        found = Findings()
        for found in preflight(self._source, self._lane_of, journal, force=options.force):
            self.tally.looked_at = found.rows
            await asyncio.sleep(0)
            if self._stopping.is_set():
                return Findings()
        if found.problems and not options.skip_bad:
            raise InputRefused(self._source.path, found)
        if journal:
            journal.looked_through()
            if not found.problems:
                journal.note_checked(Checked(self._setup, size, modified, found.rows, found.lanes))
        return found

    def _lane_of(self, row: Row) -> tuple[str, float]:
        made = row.request()
        turn = self._sender.gate.turn(made.fields, made.path)
        return turn.lane.name, turn.cost.get("tokens", 0)

    def _foretell(self, found: Findings) -> None:
        if self._say and self.tally.left:
            lanes = {lane: (min(count, self.tally.left), tokens) for lane, (count, tokens) in found.lanes.items()}
            pause = self._options.pause_at_daily_limit
            for sentence in foretell(lanes, self._sender.gate.scheduler, pause=pause):
                self._say(sentence)

    async def _feed_all(self, found: Findings) -> None:
        lanes: list[str | None] = list(found.lanes)
        if not 1 < len(lanes) <= _MOST_FEEDERS:
            lanes = [None]
        room = Room(self._options.concurrency, len(lanes))
        self._feeders = [asyncio.create_task(self._feed(n, lane, room, found)) for n, lane in enumerate(lanes)]
        try:
            await asyncio.gather(*self._feeders, return_exceptions=True)
        finally:
            for feeder in self._feeders:
                feeder.cancel()
        for feeder in self._feeders:
            if not feeder.cancelled() and (error := feeder.exception()):
                self._broken = self._broken or error

    async def _feed(self, feeder: int, lane: str | None, room: Room, found: Findings) -> None:
        """Send the rows of one lane, or of all; the first feeder also takes those that belong to none."""
        seen = None if found.rows else Digests()  # nobody has looked whether an id stands twice
        try:
            async with aclosing(rows(self._source)) as incoming:
                async for row in incoming:
                    row, problem = self._examine(row, found, seen)  # noqa: PLW2901 - a twin goes by another name
                    if self._journal and self._journal.is_done(row):
                        self.tally.done_before += seen is not None
                    elif problem:
                        if feeder == 0:
                            self._give_up(row, RequestInvalid(problem, "mend this line of the input"))
                    elif lane is None or self._lane_named(row) == lane:
                        worst = self._budget.worst(row)
                        await room.take(feeder)
                        while not self._budget.allows(worst, self._flights):
                            if self._budget.over:
                                room.give(feeder)
                                return
                            await self._change()
                        self._launch(row, feeder, room, worst)
        finally:
            room.leave(feeder)

    def _examine(self, row: Row, found: Findings, seen: Digests | None) -> tuple[Row, str | None]:
        """Return the row and what is wrong with it; one whose id is another's is named for its line."""
        problem = row.problem or found.problems.get(row.number)
        if row.number in found.twins:
            return replace(row, id=f"line-{row.number}"), problem
        if seen is not None and not seen.add(row.key):
            problem = problem or "the custom_id stands on an earlier line already; each is its own"
            return replace(row, id=f"line-{row.number}"), problem
        return row, problem

    def _lane_named(self, row: Row) -> str | None:
        model = row.model
        if model not in self._lanes:
            try:
                self._lanes[model] = self._table.find(row.request().model).name
            except RateLimitError:
                self._lanes[model] = None
        return self._lanes[model]

    def _launch(self, row: Row, feeder: int, room: Room, worst: float) -> None:
        self._budget.started += 1
        flight = _Flight(row, feeder, worst)
        self._flights.add(flight)
        flight.task = asyncio.create_task(self._fly(flight), name="row")
        flight.task.add_done_callback(lambda task: self._landed(flight, task, room))

    def _landed(self, flight: _Flight, task: asyncio.Task[None], room: Room) -> None:
        self._flights.discard(flight)
        room.give(flight.feeder)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            self._broken = self._broken or error
            self.stop(Stopped("the run came upon an error of its own"))

    async def _fly(self, flight: _Flight) -> None:
        row, clock = flight.row, asyncio.get_running_loop().time
        began = clock()
        try:
            made = row.request()
            reply = await self._sender.send(made, lambda: self._exchange(flight, made))
            self._write(records.answered(row, reply))
            flight.sent = False
            self.tally.answered(made.model, reply, began, clock())
        except JobStopped as stopped:
            self.stop(stopped)
        except RateLimitError as error:
            self._give_up(row, error)
            flight.sent = False
        finally:
            if flight.sent and not flight.in_doubt:
                self._turned_away(row)

    async def _exchange(self, flight: _Flight, made: Request) -> Reply:
        self._budget.count_attempt()
        if self._journal:
            self._journal.sending(flight.row)
        before, flight.in_doubt = flight.in_doubt, True
        flight.sent = flight.on_the_way = True
        self.tally.sent(asyncio.get_running_loop().time())
        try:
            reply = await self._transport.post(made)
        except (Unsent, NoAnswer) as error:
            if isinstance(error, Unsent):
                flight.in_doubt = before
            if self.stopped and self._stopping.is_set():
                raise self.stopped from None
            raise
        finally:
            flight.on_the_way = False
        if reply.status in _NOT_BILLED:
            flight.in_doubt = before
        if self.stopped and self._stopping.is_set() and (reply.status >= 500 or reply.status in _WORTH_ANOTHER):
            raise self.stopped
        return reply

    def _give_up(self, row: Row, error: RateLimitError) -> None:
        try:
            record = records.gave_up(row, error)
            if self._journal:
                self._journal.gave_up(record)
            else:
                _to_stdout(record)
            self.tally.gave_up(records.code_of(error), asyncio.get_running_loop().time())
        except OutputFailed as failed:
            self.stop(failed)

    def _turned_away(self, row: Row) -> None:
        try:
            if self._journal:
                self._journal.turned_away(row)
        except OutputFailed as failed:
            self.stop(failed)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _land(self) -> None:
        """Wait for what is on its way: for all of it, or within bounds once the run is stopping."""
        while self._flights and not self._stopping.is_set():
            await self._change()
        tasks = {flight.task for flight in self._flights}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._options.drain)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _to_stdout(record: bytes) -> None:
    """Write a line to standard output, past its buffer: what cannot be written is to be known now."""
    line = memoryview(record + b"\n")
    while line:
        try:
            line = line[os.write(1, line) :]
        except OSError as error:
            raise OutputFailed("standard output", error.strerror or str(error)) from None
