"""What goes on beside a run: results are made to last, what was spent is noted, and deadlines are kept."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import OutputFailed, RateLimitError
from ratelimit.jobs.budget import Options, Stopped
from ratelimit.jobs.figures import duration
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.tally import Tally

_SYNC_EVERY = 0.5  # seconds
_IDLE = 4.0  # seconds between two looks where nothing is written
_LOOK_EVERY = 1.0
_SPENT_EVERY = 10.0
_DAYS = {"RPD", "TPD"}


class Chores:
    """The tasks beside a run; `stop` is called with the reason when the run is to end."""

    def __init__(
        self,
        journal: Journal | None,
        scheduler: Scheduler,
        tally: Tally,
        options: Options,
        stop: Callable[[RateLimitError], None],
    ) -> None:
        self._journal = journal
        self._scheduler = scheduler
        self._tally = tally
        self._options = options
        self._stop = stop
        self._over = asyncio.Event()

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Go on for as long as the context is open; on leaving it, everything is synced and noted."""
        tasks = [asyncio.create_task(self._watch())]
        if self._journal:
            tasks.append(asyncio.create_task(self._keep(self._journal)))
        try:
            yield
        finally:
            self._over.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._journal:
                self._note_spent(self._journal)

    async def _keep(self, journal: Journal) -> None:
        clock = asyncio.get_running_loop().time
        noted, pause = clock(), _SYNC_EVERY
        while not self._over.is_set():
            await self._pause(pause)
            pause = _SYNC_EVERY if journal.unsynced else min(pause * 2, _IDLE)
            if journal.unsynced:
                try:
                    await asyncio.get_running_loop().run_in_executor(None, journal.sync)
                except OutputFailed as failed:
                    self._stop(failed)
            if clock() - noted >= _SPENT_EVERY:  # not by the wall clock, which may be set back an hour
                noted = clock()
                self._note_spent(journal)

    async def _watch(self) -> None:
        """Note what is waited for; stop at the deadline, or at a day's limit where the run is not to wait for more."""
        options, clock = self._options, asyncio.get_running_loop().time
        deadline = math.inf if options.deadline is None else options.deadline
        end = clock() + deadline
        started = clock()
        used_up: set[str] = set()
        while not self._over.is_set():
            began = clock()
            pause = min(max(_LOOK_EVERY, (began - started) / 600), 10 * _LOOK_EVERY)  # less often in a run of days
            await self._pause(min(max(end - began, 0.01), pause))
            if clock() >= end:
                self._stop(Stopped(f"the deadline of {duration(deadline)} has passed; run again for the rest"))
            for lane in self._scheduler.snapshot():
                if lane.waiting_for:
                    self._tally.waited[lane.waiting_for] += clock() - began
            before, used_up = used_up, {lane.name for lane in self._scheduler.snapshot() if lane.waiting_for in _DAYS}
            # Seen twice, for the last request of a day may wait a moment for what is kept back.
            if options.pause_at_daily_limit and (reached := before & used_up):
                name = min(reached)
                self._stop(Stopped(f"the daily limit of {name} is reached; run again tomorrow for the rest"))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass

    def _note_spent(self, journal: Journal) -> None:
        if spent := self._scheduler.spent():
            try:
                journal.note_spent(spent, time.time())
            except OutputFailed as failed:
                self._stop(failed)
