"""One batch at the service: created from its file, watched until it is over, cleaned up after."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

from ratelimit.errors import RequestFailed
from ratelimit.jobs.batches.api import Api, Batch, Counts
from ratelimit.jobs.batches.ledger import Enqueued, Ledger
from ratelimit.jobs.batches.packing import Piece
from ratelimit.jobs.batches.queue import Queue
from ratelimit.jobs.batches.routes import RECALLING
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.budget import Stopped
from ratelimit.jobs.figures import duration
from ratelimit.jobs.tally import Tally

_HOUR = 3600.0
_FIRST_LOOK, _LONGEST_LOOK = 5.0, 60.0  # seconds between two looks at a batch
_LOOK_SHARE = 0.015  # of a batch's age: so long may its end go unseen
_LOST_AFTER = 26 * _HOUR  # a batch ends within 24 hours, by itself
_UNSURE = 10.0  # seconds in which a creation that was asked for may still show
_UPLOADS = 3  # of one file that the service keeps losing


class Places:
    """Where the rows of a batch are in the spool: a few bytes for each, for there may be millions."""

    def __init__(self) -> None:
        self.keys: array[int] = array("Q")
        self.numbers: array[int] = array("L")  # of groups
        self._places: array[int] = array("Q")  # in those

    @classmethod
    def of(cls, piece: Piece, keys: Iterable[int]) -> Self:
        """Return those of a piece."""
        made = cls()
        made.keys.extend(keys)
        made.numbers.extend([piece.group] * len(piece.rows))
        made._places.extend(piece.rows)
        return made

    def add(self, key: int, group: int, place: int) -> None:
        """Take in a row."""
        self.keys.append(key)
        self.numbers.append(group)
        self._places.append(place)

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield key, group and place of each."""
        return zip(self.keys, self.numbers, self._places, strict=True)

    def take(self, keys: Container[int]) -> list[tuple[int, int, int]]:
        """Take some out."""
        every = list(self)
        del self.keys[:], self.numbers[:], self._places[:]
        for each in every:
            if each[0] not in keys:
                self.add(*each)
        return [each for each in every if each[0] in keys]


@dataclass(slots=True, eq=False)
class Flight:
    """A batch that is being followed."""

    about: Enqueued
    queue: Queue
    piece: Piece | None = None  # None: an earlier run has enqueued it
    places: Places = field(default_factory=Places)
    checked: bool = False
    freed: bool = False
    since: float = 0.0  # by the loop's clock
    called_back: float = math.inf  # when it was recalled, likewise
    sent: int = 0  # rows that count as sent
    counts: Counts = field(default_factory=Counts)  # as of the last look

    @property
    def answered(self) -> int:
        """Rows that it has dealt with so far."""
        return min(self.counts.done, len(self.places))

    @property
    def unanswered(self) -> int:
        """Rows that it has not."""
        return len(self.places) - self.answered

    def age(self, now: float) -> float:
        """Seconds since it was created."""
        return now - self.since

    def overdue(self, now: float) -> bool:
        """Whether it was cancelled so long ago that it should be over."""
        return not self.freed and now - self.called_back > RECALLING


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
        self._tally = tally
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
        began, asked, name = clock(), -math.inf, flight.about.batch or ""
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
                flight.sent = flight.about.rows
                self._tally.sent(clock(), flight.sent)
                self._changed.set()
            if batch.over:
                return batch
            if clock() - began > _LOST_AFTER:
                self._say(f"batch {name} has not ended after {_LOST_AFTER / _HOUR:.0f} hours, and is given up")
                await self._api.cancel(name)
                return None
            if flight.overdue(clock()) and clock() - asked > _HOUR:
                if asked < 0:
                    self._complain(flight, batch, clock())
                asked = clock()
                await self._api.cancel(name)
            await asyncio.sleep(min(max((clock() - began) * _LOOK_SHARE, _FIRST_LOOK), _LONGEST_LOOK))

    def _complain(self, flight: Flight, batch: Batch, now: float) -> None:
        """Say that a batch does not end; its rows are nobody else's until it does."""
        self._say(
            f"batch {batch.id} was cancelled {duration(now - flight.called_back)} ago and is still {batch.status}: it "
            f"is cancelled once more, and its {flight.about.rows:,} requests wait for it, since sent another way they "
            f"would be paid for twice"
        )

    def over(self, about: Enqueued, batch: Batch, *, answered: int = 0, whole: bool = True) -> None:
        """Note that a batch is over, and which of its files nobody needs any more."""
        files = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
        litter = () if self._keep_files or not whole else tuple(file for file in files if file)
        self._ledger.over(about, batch.status, answered, litter=litter)

    async def clean(self, about: Enqueued) -> None:
        """Delete a batch's files, all of which are on disk here; what cannot be deleted is worth no stop."""
        try:
            await self._delete(about)
        except RequestFailed as error:
            self._say(f"files of batch {about.batch} are left at the service for now: {error}")

    async def _delete(self, about: Enqueued) -> None:
        if about.litter:
            for file in about.litter:
                await self._api.delete(file)
            self._ledger.cleaned(about)

    async def sweep(self) -> None:
        """Delete what interrupted runs have left: files of batches that are over, uploads that came to nothing."""
        if not self._ledger.all or self._keep_files:
            return
        try:
            for about in self._ledger.all.values():
                await self._delete(about)
            for file, name in (await self._api.files()).items():
                if name.startswith(f"ratelimit-{self._ledger.job}-"):
                    await self._api.delete(file)
        except RequestFailed as error:  # the work is done, and worth more than the room that its files take
            self._say(f"files of this job may be left at the service: {error}")
