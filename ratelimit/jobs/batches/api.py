"""The files and batches of the service: what the Batch API is spoken to with.

Whatever may pass is asked again until it does, with back-off: a batch lives for hours, and an outage of minutes is no
reason to lose sight of it. What is final is raised. Creating is the one call that must not be repeated blindly; so it
is looked for by its tag before it is tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import IO, TypeVar

import msgspec

from ratelimit.errors import RateLimitError, RequestFailed
from ratelimit.wire.judge import Verdict, judge, judge_failure
from ratelimit.wire.messages import Reply
from ratelimit.wire.transport import Form, NoAnswer, Transport, Unsent

T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_SAID_AFTER = 5  # failures in a row
_PAGE = 100
_MOST_REPLY = 16 * 1024 * 1024  # of an object; files come as streams
_REFUSED = 400

JOB_TAG, BATCH_TAG = "ratelimit_job", "ratelimit_batch"


class Problem(msgspec.Struct, frozen=True):
    """One thing that validation has found."""

    code: str | None = None
    message: str | None = None
    line: int | None = None


class _Problems(msgspec.Struct, frozen=True):
    data: tuple[Problem, ...] = ()


class Counts(msgspec.Struct, frozen=True):
    """What the service says has become of a batch's requests."""

    total: float | None = 0
    completed: float | None = 0
    failed: float | None = 0

    @property
    def done(self) -> int:
        """How many it is done with."""
        return max(int((self.completed or 0) + (self.failed or 0)), 0)


class Batch(msgspec.Struct, frozen=True):
    """A batch as the service tells of it."""

    id: str
    status: str
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Problems | None = None
    request_counts: Counts | None = None
    metadata: dict[str, object] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in {"completed", "failed", "expired", "cancelled"}

    @property
    def counts(self) -> Counts:
        """What has become of its requests so far."""
        return self.request_counts or Counts()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why validation has failed."""
        return self.errors.data if self.errors else ()


class _Id(msgspec.Struct, frozen=True):
    id: str


class _File(msgspec.Struct, frozen=True):
    id: str
    filename: str = ""


class _Files(msgspec.Struct, frozen=True):
    data: tuple[_File, ...] = ()
    has_more: bool = False


class _Batches(msgspec.Struct, frozen=True):
    data: tuple[msgspec.Raw, ...] = ()
    has_more: bool = False


class Api:
    """Files and batches over a transport."""

    def __init__(self, transport: Transport, say: Callable[[str], None]) -> None:
        self._transport = transport
        self._say = say
        self._failing = 0

    async def upload(self, name: str, content: Callable[[], IO[bytes]]) -> str:
        """Upload a batch's requests; returns the file's id. `content` opens them anew for every attempt."""

        def form() -> Form:
            return Form({"purpose": "batch"}, name, content())

        return (await self._persist(lambda: self._ask("POST", "files", _Id, form=form()))).id

    async def create(self, file: str, endpoint: str, job: str, tag: str) -> Batch:
        """Create the batch of an uploaded file, once: one that an unanswered attempt has left is found by its tag."""
        body = msgspec.json.encode(
            {
                "input_file_id": file,
                "endpoint": endpoint,
                "completion_window": "24h",
                "metadata": {JOB_TAG: job, BATCH_TAG: tag},
            }
        )
        asked = False

        async def attempt() -> Batch:
            nonlocal asked
            if asked and (found := await self._tagged(job)).get(tag):
                return found[tag]
            asked = True
            return await self._ask("POST", "batches", Batch, body=body)

        return await self._persist(attempt)

    async def get(self, batch: str) -> Batch:
        """Return how a batch stands."""
        return await self._persist(lambda: self._ask("GET", f"batches/{batch}", Batch))

    async def cancel(self, batch: str) -> None:
        """Begin to cancel a batch; one that is over stays as it is."""
        try:
            await self._persist(lambda: self._ask("POST", f"batches/{batch}/cancel", Batch, once={409}))
        except RequestFailed as error:
            if error.status not in {400, 404, 409}:
                raise

    async def tagged(self, job: str) -> dict[str, Batch]:
        """Return every batch of a job, by its tag."""
        return await self._persist(lambda: self._tagged(job))

    async def delete(self, file: str) -> None:
        """Delete a file; one that is gone is gone."""
        try:
            await self._persist(lambda: self._ask("DELETE", f"files/{file}", _Id))
        except RequestFailed as error:
            if error.status != 404:
                raise

    async def files(self) -> dict[str, str]:
        """Return the names of all uploaded batch files, by id."""
        found: dict[str, str] = {}
        query = {"purpose": "batch", "limit": "10000"}
        while True:
            page = await self._persist(lambda: self._ask("GET", "files", _Files, query=query))
            found |= {file.id: file.filename for file in page.data}
            if not page.has_more or not page.data or query.get("after") == page.data[-1].id:
                return found
            query["after"] = page.data[-1].id

    async def download(self, file: str, target: IO[bytes]) -> None:
        """Fetch a file's content as it comes; what broke off is fetched from its beginning."""

        async def attempt() -> None:
            target.seek(0)
            target.truncate()
            async with self._exchange("GET", f"files/{file}/content") as (reply, pieces):
                if reply.status >= _REFUSED:
                    _raise(judge(await _whole(reply, pieces)))
                async for piece in pieces:
                    target.write(piece)

        await self._persist(attempt)
        target.seek(0)

    async def _tagged(self, job: str) -> dict[str, Batch]:
        found: dict[str, Batch] = {}
        query = {"limit": str(_PAGE)}
        while True:
            page = await self._ask("GET", "batches", _Batches, query=query)
            last = None
            for raw in page.data:
                with suppress(msgspec.ValidationError):  # a batch of somebody else's may be whatever it likes
                    last = msgspec.json.decode(raw, type=_Id).id
                    batch = msgspec.json.decode(raw, type=Batch)
                    tags = batch.metadata or {}
                    if tags.get(JOB_TAG) == job and BATCH_TAG in tags:
                        found[str(tags[BATCH_TAG])] = batch
            if not page.has_more or last is None or query.get("after") == last:
                return found
            query["after"] = last

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        form: Form | None = None,
        once: set[int] | None = None,
    ) -> T:
        async with self._exchange(method, path, query=query, body=body, form=form) as (head, pieces):
            reply = await _whole(head, pieces)
        verdict = judge(reply) if reply.status >= _REFUSED else None
        if verdict and once and reply.status in once and verdict.error:
            raise verdict.error
        if verdict:
            _raise(verdict)
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _Again(judge(Reply(500, {}, reply.body))) from None

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        form: Form | None = None,
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        try:
            async with self._transport.exchange(method, path, query=query, body=body, form=form) as answer:
                yield answer
        except (Unsent, NoAnswer) as failure:
            raise _Again(judge_failure(failure)) from None

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run an attempt until it succeeds or raises what is final."""
        wait = _FIRST_WAIT
        while True:
            try:
                result = await attempt()
            except _Again as again:
                self._failing += 1
                if self._failing == _SAID_AFTER:
                    self._say(f"the Batch API does not answer as it should, and is asked again: {again.verdict.error}")
                told = again.verdict.after
                jittered = random.uniform(wait / 2, wait)  # noqa: S311 - no secret
                await asyncio.sleep(jittered if told is None else min(max(told, 0.0), _LONGEST_WAIT))
                wait = min(wait * 2, _LONGEST_WAIT)
            else:
                self._failing = 0
                return result


class _Again(Exception):
    """An exchange has failed in a way that may pass."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.kind)
        self.verdict = verdict


def _raise(verdict: Verdict) -> None:
    error = verdict.error or RateLimitError("the service gave no reason; run again later")
    raise _Again(verdict) if verdict.kind == "again" else error


async def _whole(reply: Reply, pieces: AsyncIterator[bytes]) -> Reply:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > _MOST_REPLY:
            raise RequestFailed(reply.status, "reply_too_large", f"a reply is larger than {_MOST_REPLY:,} bytes")
    return Reply(reply.status, reply.headers, bytes(body))
