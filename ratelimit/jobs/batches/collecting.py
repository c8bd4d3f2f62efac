"""Fetches what a batch has answered and writes it where every result of a job is written.

A file that ends in the middle of a line, or holds fewer lines than the batch counts, is fetched again. What is missing
then is said, and the files are left where they are: somebody may want to look at them.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ratelimit.errors import RequestFailed
from ratelimit.jobs.batches import merging
from ratelimit.jobs.batches.api import Api, Batch
from ratelimit.jobs.batches.ledger import Enqueued
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.lines import failing_as_ours
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import Table

_AT_ONCE = 200  # lines merged before everybody else has a turn
_WAITS = (5.0, 30.0, 120.0)  # seconds before a file is fetched again


@dataclass(slots=True)
class Collected:
    """What has come of a batch."""

    answered: int = 0
    executed: int = 0
    failures: list[tuple[int, bytes, str]] = field(default_factory=list)  # that may pass: key, record, code
    whole: bool = True  # the files hold what the batch counts


class Collector:
    """Merges batches into the files of a job."""

    def __init__(self, api: Api, journal: Journal, tally: Tally, table: Table, say: Callable[[str], None]) -> None:
        self._api = api
        self._journal = journal
        self._tally = tally
        self._table = table
        self._say = say

    async def collect(self, batch: Batch, about: Enqueued, *, now: float) -> Collected:
        """Write down everything that a batch has answered, once, however often it is collected."""
        keys, counts = set(about.keys), batch.counts
        for wait in (*_WAITS, None):
            failures = dict[int, tuple[bytes, str]]()
            answered, told = set[int](), set[int]()
            for file in (batch.output_file_id, batch.error_file_id):
                with failing_as_ours(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as content:
                    if file and await self._fetch(file, batch, content):
                        for number, line in enumerate(content):
                            if not number % _AT_ONCE:
                                await asyncio.sleep(0)
                            outcome = merging.read(line)
                            if outcome is None or outcome.key not in keys:
                                continue
                            told.add(outcome.key)
                            self._take(outcome, about, failures, answered, now)
            whole = len(told) >= min(counts.done, about.rows)
            if whole or wait is None:
                break
            await asyncio.sleep(wait)
        if not whole:
            self._say(
                f"batch {batch.id} counts {counts.done:,} results, but its files hold {len(told):,}; "
                f"the files are left at the service, and what is missing is enqueued again"
            )
        pending = [(key, *failed) for key, failed in failures.items() if key not in self._journal.done]
        return Collected(len(answered), len(answered | failures.keys()), pending, whole)

    def _take(
        self,
        outcome: merging.Outcome,
        about: Enqueued,
        failures: dict[int, tuple[bytes, str]],
        answered: set[int],
        now: float,
    ) -> None:
        if outcome.kind == "again":
            if not outcome.undone:
                failures[outcome.key] = outcome.record, outcome.code
            return
        answered.add(outcome.key)
        if not self._journal.done.add(outcome.key):
            return
        if outcome.reply:
            self._journal.answered(outcome.record)
            model = self._table.find(about.lane)
            discount = (model.prices.batch_discount if model.prices else None) or 0.0
            self._tally.batched += 1
            self._tally.answered(about.lane, outcome.reply, now, now, discount=discount)
        else:
            self._journal.gave_up(outcome.record)
            self._tally.gave_up(outcome.code, now)

    async def _fetch(self, file: str, batch: Batch, content: IO[bytes]) -> bool:
        try:
            await self._api.download(file, content)
        except RequestFailed as error:
            if error.status != 404:
                raise
            self._say(f"file {file} of batch {batch.id} is gone, and what it answered with it")
            return False
        return True
