"""One batch at the service: created from its file, watched until it is over, cleaned up after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ratelimit.errors import RequestFailed
from ratelimit.jobs.batches.api import Api, Batch, Counts
from ratelimit.jobs.batches.ledger import Enqueued, Ledger
from ratelimit.jobs.batches.packing import Piece
from ratelimit.jobs.batches.queue import Queue
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.budget import Stopped
from ratelimit.jobs.tally import Tally

_HOUR = 3600.0
_FIRST_LOOK, _LONGEST_LOOK = 5.0, 60.0  # seconds between two looks at a batch
_LOOK_SHARE = 0.015  # of a batch's age: so long may its end go unseen
_LOST_AFTER = 26 * _HOUR  # a batch ends within 24 hours, by itself
_UNSURE = 10.0  # seconds in which a creation that was asked for may still show
_UPLOADS = 3  # of one file that the service keeps losing


@dataclass(slots=True, eq=False)
class Flight:
    """A batch that is being followed."""

    about: Enqueued
    queue: Queue
    piece: Piece | None = None  # None: an earlier run has enqueued it
    places: dict[int, tuple[int, int]] = field(default_factory=dict)  # where each row is in the spool, by its key
    checked: bool = False
    freed: bool = False
    since: float = 0.0  # by the loop's clock
    counts: Counts = field(default_factory=Counts)  # as of the last look

    @property
    def answered(self) -> int:
        """Rows that it has dealt with so far."""
        return min(self.counts.completed + self.counts.failed, len(self.places))

    @property
    def unanswered(self) -> int:
        """Rows that it has not."""
        return len(self.places) - self.answered

    def age(self, now: float) -> float:
        """Seconds since it was created."""
        return now - self.since


class Follower:
    """Follows batches, whosever rows are in them."""

    def __init__(
        self,
        api: Api,
        spool: Spool,
        ledger: Ledger,
        tally: Tally,
        *,
        transfers: asyncio.Semaphore,
        changed: asyncio.Event,
        say: Callable[[str], None],
        keep_files: bool,
    ) -> None:
        self._api = api
        self._spool = spool
        self._ledger = ledger
        self.tally = tally
        self._transfers = transfers
        self._changed = changed
        self._say = say
        self._keep_files = keep_files

    async def settle(self) -> None:
        """Find what earlier runs have enqueued; what they only meant to is over."""
        unsure = []
        for about in self._ledger.open:
            if about.file is None:
                self._ledger.over(about, "never created")
            elif about.batch is None:
                unsure.append(about)
        if unsure:
            found = await self._api.tagged(self._ledger.job)
            if any(about.tag not in found for about in unsure):
                await asyncio.sleep(_UNSURE)
                found = await self._api.tagged(self._ledger.job)
            for about in unsure:
                if about.tag in found:
                    self._ledger.began(about, found[about.tag].id)
                else:
                    await self._api.delete(about.file or "")  # so that nothing can come of it any more
                    self._ledger.over(about, "never created")

    async def begin(self, flight: Flight, piece: Piece) -> None:
        """Upload a piece and create its batch, noting each before the next is done."""
        about, job = flight.about, self._ledger.job
        for attempt in range(_UPLOADS):
            try:
                async with self._transfers:
                    file = await self._api.upload(
                        f"ratelimit-{job}-{about.tag}.jsonl", lambda: self._spool.file(piece.group, piece.rows)
                    )
                self._ledger.uploaded(about, file)
                batch = await self._api.create(file, about.endpoint, job, about.tag)
            except RequestFailed as error:
                if attempt == _UPLOADS - 1:
                    raise Stopped(f"no batch can be created: {error}; nothing was lost, run again") from None
                self._say(f"a batch was not created, and its file is uploaded again: {error}")
            else:
                self._ledger.began(about, batch.id)
                return

    async def until_over(self, flight: Flight) -> Batch | None:
        """Look at a batch until nothing more will come of it; None where it is lost."""
        clock = asyncio.get_running_loop().time
        began, name = clock(), flight.about.batch or ""
        while True:
            try:
                batch = await self._api.get(name)
            except RequestFailed as error:
                self._say(f"batch {name} is gone ({error}); what it had not answered is enqueued again")
                return None
            flight.counts = batch.counts
            if batch.status in {"in_progress", "finalizing", "completed"} and not flight.checked:
                flight.checked = True
                flight.queue.unchecked -= 1
                flight.queue.let_in()
                self.tally.attempts += flight.about.rows
                self._changed.set()
            if batch.over:
                return batch
            if clock() - began > _LOST_AFTER:
                self._say(f"batch {name} has not ended after {_LOST_AFTER / _HOUR:.0f} hours, and is given up")
                await self._api.cancel(name)
                return None
            await asyncio.sleep(min(max((clock() - began) * _LOOK_SHARE, _FIRST_LOOK), _LONGEST_LOOK))

    async def clean(self, batch: Batch) -> None:
        """Delete a batch's files, all of which are on disk here."""
        if not self._keep_files:
            for file in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
                if file:
                    await self._api.delete(file)

    async def sweep(self) -> None:
        """Delete what interrupted runs have uploaded for nothing."""
        if not self._ledger.all or self._keep_files:
            return
        try:
            for file, name in (await self._api.files()).items():
                if name.startswith(f"ratelimit-{self._ledger.job}-"):
                    await self._api.delete(file)
        except RequestFailed as error:  # the work is done, and worth more than the room that its files take
            self._say(f"files of this job may be left at the service: {error}")
