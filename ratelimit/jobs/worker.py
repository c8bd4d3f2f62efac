"""One of many who work on a job: rows in, one outcome for each, and nothing asked that any of them has had answered.

Who hands out the rows, and starts a worker again that was killed, is somebody else: an engine for jobs larger than one
machine. So a worker raises nothing: to an engine, an exception is a reason to do the same again, and what has been paid
for with it. What no retry can cure is the outcome of every row from then on, unsent and unkept; the next run asks them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from ratelimit.errors import JobStopped, OutputFailed, RateLimitError, RequestInvalid
from ratelimit.jobs import records
from ratelimit.jobs.checkpoint import Checkpoint
from ratelimit.jobs.records import Outcome
from ratelimit.jobs.source import Row
from ratelimit.wire.client import Client


class Worker:
    """Sends rows through one client and keeps what comes of them in one checkpoint."""

    def __init__(self, client: Client, checkpoint: Checkpoint) -> None:
        self._client = client
        self._checkpoint = checkpoint
        self._under_way: dict[int, asyncio.Task[Outcome]] = {}

    async def answer(self, rows: Sequence[Row]) -> list[Outcome]:
        """Return what became of each row, in their order; asks for those only that nobody has asked for."""
        self._checkpoint.refresh()
        begun = [self._known(row) or self._begin(row) for row in rows]
        outcomes = [each if isinstance(each, Outcome) else await each for each in begun]
        try:
            await self._checkpoint.sync()
        except OutputFailed as failed:
            self._stop(failed)
        return outcomes

    def _known(self, row: Row) -> Outcome | None:
        if row.problem:
            return _failed(row, RequestInvalid(row.problem, "mend this row of the input"))
        return self._checkpoint.find(row)

    def _begin(self, row: Row) -> asyncio.Task[Outcome]:
        """Send a row, or find it on its way: the same may be asked twice at one time."""
        if (task := self._under_way.get(row.content)) is None:
            task = self._under_way[row.content] = asyncio.create_task(self._send(row), name="row")
            task.add_done_callback(lambda _: self._under_way.pop(row.content))
        return task

    async def _send(self, row: Row) -> Outcome:
        sender = self._client.sender
        try:
            made = row.request()
            reply = await sender.send(made, partial(self._client.transport.post, made))
            line = records.answered(row, reply)
        except JobStopped as stopped:
            self._stop(stopped)
            return _failed(row, stopped)
        except RateLimitError as error:
            line = records.gave_up(row, error)
        try:
            self._checkpoint.keep(line)
        except OutputFailed as failed:  # what came of the row is here, and still of use
            self._stop(failed)
        return records.outcome(line)

    def _stop(self, why: JobStopped) -> None:
        """Send nothing from now on."""
        sender = self._client.sender
        sender.stopped = sender.stopped or why
        sender.dismiss(why)


def _failed(row: Row, error: RateLimitError) -> Outcome:
    return records.outcome(records.gave_up(row, error))
