"""Rows on their way through the live API: each is sent until it is answered or given up, and that is written down.

A row is noted in the journal before it goes out, and in the output or the errors file when it is done; in between it
may have been billed. Once stopped, what waits for its turn is dropped untouched, and what is on its way is waited for,
within bounds, because it is paid for.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ratelimit.errors import (
    HostNotTrusted,
    JobStopped,
    ModelGone,
    NothingThere,
    OutputFailed,
    RateLimitError,
    RequestFailed,
)
from ratelimit.jobs import records
from ratelimit.jobs.budget import Budget, Stopped
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.lines import as_line
from ratelimit.jobs.source import Row
from ratelimit.jobs.tally import Tally
from ratelimit.wire.client import Client
from ratelimit.wire.messages import Reply, Request
from ratelimit.wire.transport import NoAnswer, Unsent

_EXCHANGE = 20.0  # seconds, until one was seen
_WEIGHT = 0.05  # of the last exchange in the average

_NOT_BILLED = {401, 403, 404, 429}
_WORTH_ANOTHER = {408, 409, 429}
_NO_MODEL = {"model_not_found", "DeploymentNotFound"}
_NAMES_NO_MODEL = re.compile(r"\bmodel\b.*\b(not found|does not exist)", re.IGNORECASE | re.DOTALL)  # in a 404
_MODEL_NOT_SERVED = "Invalid model name"  # in a 400, by LiteLLM's proxy
_NO_PATH = "Invalid URL"


@dataclass(slots=True, eq=False)
class Flight:
    """A row that is being dealt with."""

    row: Row
    worst: float  # dollars it may cost
    task: asyncio.Task[None] = field(init=False)
    sent: bool = False
    on_the_way: bool = False
    in_doubt: bool = False  # it may have been billed without our having the answer


class Flights:
    """Every row that is being dealt with; `stop` is called with the reason where no row can be sent any more."""

    def __init__(
        self,
        client: Client,
        journal: Journal | None,
        tally: Tally,
        budget: Budget,
        *,
        drain: float,
        stop: Callable[[RateLimitError], None],
    ) -> None:
        self.exchange: float = _EXCHANGE  # seconds from a request to its reply, of late
        self.broken: BaseException | None = None
        self.changed: asyncio.Event = asyncio.Event()  # a row has landed, or the run is stopping
        self.gone: dict[bytes | str, JobStopped] = {}  # models and paths that the service does not have
        self._answering: set[str] = set()  # paths
        self._sender = client.sender
        self._transport = client.transport
        self._journal = journal
        self._write: Callable[[bytes], None] = journal.answered if journal else _to_stdout
        self._tally = tally
        self._budget = budget
        self._drain = drain
        self._stop = stop
        self._stopped: RateLimitError | None = None
        self._flying: set[Flight] = set()

    def __len__(self) -> int:
        return len(self._flying)

    def allows(self, worst: float) -> bool:
        """Whether the budget has room for one more."""
        return self._budget.allows(worst, self._flying)

    def launch(self, row: Row, worst: float, landed: Callable[[], None]) -> None:
        """Begin to send a row; `landed` is called when it is dealt with, or dropped."""
        self._budget.started += 1
        flight = Flight(row, worst)
        self._flying.add(flight)
        flight.task = asyncio.create_task(self._fly(flight), name="row")
        flight.task.add_done_callback(lambda task: self._landed(flight, task, landed))

    def stop(self, why: RateLimitError) -> None:
        """Send nothing new from now on: what waits is dropped."""
        self._stopped = why
        self.changed.set()
        for flight in self._flying:
            if not flight.on_the_way:
                flight.task.cancel()

    def leave(self) -> None:
        """Wait for nothing any more."""
        for flight in self._flying:
            flight.task.cancel()

    async def change(self) -> None:
        """Wait until a row lands."""
        self.changed.clear()
        await self.changed.wait()

    async def land(self) -> None:
        """Wait for what is on its way: for all of it, or within bounds once the run is stopping."""
        while self._flying and not self._stopped:
            await self.change()
        tasks = {flight.task for flight in self._flying}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._drain)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def give_up(self, row: Row, error: RateLimitError, model: str | None = None) -> None:
        """Write down that a row will not succeed; the model is told where it was asked."""
        try:
            record = records.gave_up(row, error)
            if self._journal:
                self._journal.gave_up(record)
            else:
                _to_stdout(record)
            code, now = records.code_of(error), asyncio.get_running_loop().time()
            self._tally.gave_up(code, now, model, said=f"{row.id}: {error}")
        except OutputFailed as failed:
            self._stop(failed)

    def _landed(self, flight: Flight, task: asyncio.Task[None], landed: Callable[[], None]) -> None:
        self._flying.discard(flight)
        landed()
        self.changed.set()
        if not task.cancelled() and (error := task.exception()):
            self.broken = self.broken or error
            self._stop(Stopped("the run came upon an error of its own"))

    async def _fly(self, flight: Flight) -> None:
        row, clock = flight.row, asyncio.get_running_loop().time
        began = clock()
        try:
            made = row.request()
            reply = await self._sender.send(made, lambda: self._exchange(flight, made))
            self._write(records.answered(row, reply))
            self._answering.add(row.path)
            flight.sent = False
            self._tally.answered(made.model, reply, began, clock())
        except JobStopped as stopped:
            self._stop(stopped)
        except RateLimitError as error:
            if isinstance(error, RequestFailed) and (absent := self._absent(error, made)):
                self._go_without(row.path if isinstance(absent, NothingThere) else row.model, absent)
            else:
                self.give_up(row, error, made.model if flight.sent else None)
                flight.sent = False
        finally:
            if flight.sent and not flight.in_doubt:
                self._turned_away(row)

    def is_without(self, row: Row) -> bool:
        """Whether the service does not have what a row asks for."""
        return bool(self.gone) and (row.model in self.gone or row.path in self.gone)

    def _go_without(self, what: bytes | str, why: JobStopped) -> None:
        """Send nothing more to a model or a path: no row is to blame, and those of others go on."""
        if what not in self.gone:
            self.gone[what] = why
            for flight in self._flying:
                if not flight.on_the_way and self.is_without(flight.row):
                    flight.task.cancel()

    def _absent(self, error: RequestFailed, made: Request) -> JobStopped | None:
        """Return what the service does not have, if that is why it has refused a request."""
        status, said = error.status, error.message
        named = status == 404 and _NAMES_NO_MODEL.search(said)
        if error.code in _NO_MODEL or named or (status == 400 and _MODEL_NOT_SERVED in said):
            return ModelGone(made.model, said)
        nowhere = status == 405 or (status == 404 and (error.code in {None, "404"} or said.startswith(_NO_PATH)))
        if nowhere and made.path not in self._answering:
            return NothingThere(self._transport.where(made), status, said)
        return None

    async def _exchange(self, flight: Flight, made: Request) -> Reply:
        self._budget.count_attempt()
        if self._journal:
            self._journal.sending(flight.row)
        before, flight.in_doubt = flight.in_doubt, True
        flight.sent = flight.on_the_way = True
        clock = asyncio.get_running_loop().time
        began = clock()
        self._tally.sent(began)
        try:
            reply = await self._transport.post(made)
            self.exchange += (clock() - began - self.exchange) * _WEIGHT
        except (Unsent, NoAnswer, HostNotTrusted) as error:
            if not isinstance(error, NoAnswer):
                flight.in_doubt = before
            if self._stopped:
                raise self._stopped from None
            raise
        finally:
            flight.on_the_way = False
        if reply.status in _NOT_BILLED:
            flight.in_doubt = before
        if self._stopped and (reply.status >= 500 or reply.status in _WORTH_ANOTHER):
            raise self._stopped
        return reply

    def _turned_away(self, row: Row) -> None:
        try:
            if self._journal:
                self._journal.turned_away(row)
        except OutputFailed as failed:
            self._stop(failed)


def _to_stdout(record: bytes) -> None:
    """Write a line to standard output, past its buffer: what cannot be written is to be known now."""
    line = memoryview(as_line(record))
    while line:
        try:
            line = line[os.write(1, line) :]
        except OSError as error:
            raise OutputFailed("standard output", error.strerror or str(error)) from None
