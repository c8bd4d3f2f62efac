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
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

import msgspec

from ratelimit.errors import InputChanged, OutputFailed, RateLimitError, RequestInvalid
from ratelimit.jobs.budget import Budget, Options
from ratelimit.jobs.chores import Chores
from ratelimit.jobs.days import foretell
from ratelimit.jobs.feeding import Room, rows
from ratelimit.jobs.flights import Flights
from ratelimit.jobs.journal import Checked, Digests, Journal
from ratelimit.jobs.preflight import Findings, InputRefused, preflight
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import Table
from ratelimit.wire.client import Client

_MOST_FEEDERS = 16  # each reads the input once more

Say = Callable[[str], None]
"""Tells the person at the terminal something, in one line."""


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
        self.tally: Tally = Tally(table)
        self.stopped: RateLimitError | None = None
        self._sender = client.sender
        self._concurrency = min(options.concurrency, client.concurrency)
        self._table = table
        self._source = source
        self._journal = journal
        self._options = options
        self._setup = setup  # a number that changes when limits do, so that the input is looked through anew
        self._say = say
        self._retry_failed = retry_failed
        self._budget = Budget(options, self.tally, table)
        self._flights = Flights(client, journal, self.tally, self._budget, drain=options.drain, stop=self.stop)
        self._feeders: list[asyncio.Task[None]] = []
        self._lanes: dict[bytes, str | None] = {}
        self._stopping = asyncio.Event()
        self._broken: BaseException | None = None
        self._state: tuple[int, int] | None = None  # of the input, when the run began

    async def run(self) -> None:
        """Send every row that is left, to the end or until something stops it; what came of it is in the tally."""
        clock = asyncio.get_running_loop().time
        found = await self._look_through()
        self.tally.start(found, clock())
        self.tally.live = True
        if self._stopping.is_set():
            self.tally.end(clock())
            return
        if self._journal and self._retry_failed:
            self._journal.forget_failures()
        self._foretell(found)
        if self._say and self._concurrency < (wanted := self._options.concurrency):
            self._say(
                f"{self._concurrency:,} requests are in flight at most, not {wanted:,}: this process may open no more "
                f"files; raise that with ulimit -n"
            )
        scheduler = self._sender.gate.scheduler
        try:
            async with Chores(self._journal, scheduler, self.tally, self._options, self.stop).going_on():
                await self._feed_all(found)
                await self._flights.land()
        finally:
            self.tally.end(clock())
        self._note_left(found)
        if broken := self._broken or self._flights.broken:
            raise broken
        self.stopped = self.stopped or self._budget.used_up or next(iter(self._flights.gone.values()), None)
        if not self.stopped and self._has_changed():
            self.stopped = InputChanged(self._source.path)

    def _has_changed(self) -> bool:
        """Whether the input is another than the run has looked through; one that is gone is still read to its end."""
        with suppress(OSError):
            return self._state is not None and self._source.state() != self._state
        return False

    def stop(self, why: RateLimitError) -> None:
        """Send nothing new from now on; what waits is dropped, what is on its way is waited for."""
        if self._stopping.is_set():
            return
        self.stopped = why
        self._stopping.set()
        for feeder in self._feeders:
            feeder.cancel()
        self._flights.stop(why)

    def leave(self) -> None:
        """Wait for nothing any more."""
        self._flights.leave()

    def standing(self) -> str:
        """There is nothing to say beside the tally and the lanes."""
        return ""

    async def _look_through(self) -> Findings:
        journal, options = self._journal, self._options
        if self._source.rereadable:
            self._state = self._source.state()
        if not options.check or self._state is None:
            return Findings(looked=False)
        size, modified = self._state
        known = journal.checked if journal else None
        if journal and known and (known.setup, known.size, known.modified) == (self._setup, size, modified):
            return Findings(rows=known.rows, done=len(journal.done), lanes=known.lanes)
        found = Findings()
        looking = preflight(self._source, self._lane_of, journal, force=options.force, skip_bad=options.skip_bad)
        for found in looking:
            self.tally.looked_at = found.rows
            await asyncio.sleep(0)
            if self._stopping.is_set():
                return Findings(looked=False)
        if found.bad and not options.skip_bad:
            raise InputRefused(self._source.path, found)
        if journal:
            journal.looked_through()
            if not found.bad:
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

    def _note_left(self, found: Findings) -> None:
        """Note what each lane has left, for a later run to tell how long it takes."""
        left_of = +self.tally.left_of
        if left_of and self._journal and (checked := self._journal.checked):
            lanes = {
                lane: (left, found.lanes[lane][1] * left / found.lanes[lane][0])
                for lane, left in left_of.items()
                if lane in found.lanes
            }
            with suppress(OutputFailed):  # it stops the run where it matters
                self._journal.note_checked(msgspec.structs.replace(checked, lanes=lanes))

    async def _feed_all(self, found: Findings) -> None:
        lanes: list[str | None] = list(found.lanes)
        if not 1 < len(lanes) <= _MOST_FEEDERS:
            lanes = [None]
        room = Room(self._concurrency, len(lanes))
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
        seen = None if found.looked else Digests()  # nobody has looked whether an id stands twice
        try:
            wanted = found.wanted(None if lane is None else feeder)
            most = found.rows if found.looked and not wanted else None  # what is appended is for the next run
            async with aclosing(rows(self._source, wanted, most)) as incoming:
                async for row in incoming:
                    row, problem = self._examine(row, found, seen)  # noqa: PLW2901 - a twin goes by another name
                    if self._journal and self._journal.is_done(row):
                        self.tally.done_before += seen is not None
                    elif problem:
                        if not found.is_bad(row.place) and self._has_changed():
                            self.stop(InputChanged(self._source.path))
                        elif feeder == 0:
                            self._flights.give_up(row, RequestInvalid(problem, "mend this line of the input"))
                    elif self._flights.is_without(row):
                        continue
                    elif lane is None or self._is_for(feeder, row, found):
                        worst = self._budget.worst(row)
                        await room.take(feeder)
                        while not self._flights.allows(worst):
                            if self._budget.over:
                                room.give(feeder)
                                return
                            await self._flights.change()
                        self._flights.launch(row, worst, partial(room.give, feeder))
        finally:
            room.leave(feeder)

    def _examine(self, row: Row, found: Findings, seen: Digests | None) -> tuple[Row, str | None]:
        """Return the row and what is wrong with it; one whose id is another's is named for its line."""
        problem = found.problem(row, self._lane_of)
        if seen is not None and not seen.add(row.key):
            problem = problem or "the custom_id stands on an earlier line already; each is its own"
            return replace(row, id=f"line-{row.number}"), problem
        return found.named(row), problem

    def _is_for(self, feeder: int, row: Row, found: Findings) -> bool:
        """Whether a row belongs to the lane of a feeder; one whose lane has none belongs to the first."""
        place = found.lane_of(row.place)
        if place is None:
            lanes, name = list(found.lanes), self._lane_named(row)
            place = lanes.index(name) if name in lanes else 0
        return place == feeder

    def _lane_named(self, row: Row) -> str | None:
        model = row.model
        if model not in self._lanes:
            try:
                self._lanes[model] = self._table.find(row.request().model).name
            except RateLimitError:
                self._lanes[model] = None
        return self._lanes[model]
