"""The client: requests in, replies out, at the speed the tier allows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from ratelimit.admission.scheduler import LaneStatus
from ratelimit.errors import JobStopped, RateLimitError, RequestFailed, RequestInvalid
from ratelimit.limits.content import CHAT_PATH
from ratelimit.wire.many import Many
from ratelimit.wire.messages import Reply, Request, request
from ratelimit.wire.sender import Count, Sender
from ratelimit.wire.streaming import Stream, begin
from ratelimit.wire.transport import Transport

Body = bytes | str | Mapping[str, Any] | Request
"""A request's body as JSON bytes or text, as a mapping, or one that is already checked."""

EMBEDDINGS_PATH = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one of many: a reply or an error.

    >>> Result(0, None, reply=Reply(200, {}, b"{}")).unwrap()
    Reply(status=200)
    """

    index: int
    request: Request | None
    reply: Reply | None = None
    error: RateLimitError | None = None

    def unwrap(self) -> Reply:
        """Return the reply, or raise the error."""
        if self.reply is None:
            raise self.error or RuntimeError("a result holds a reply or an error")
        return self.reply


class Client:
    """Sends requests to one endpoint with one key; made by `ratelimit.open`.

    >>> import asyncio, ratelimit
    >>> bodies = [{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": str(n)}]} for n in range(3)]
    >>> async def main():
    ...     async with ratelimit.open(tier="tier-1") as client:
    ...         return [result.index async for result in client.map(bodies, ordered=True)]
    >>> asyncio.run(main())
    [0, 1, 2]
    """

    def __init__(self, sender: Sender, transport: Transport, *, concurrency: int) -> None:
        self.sender = sender
        self.transport = transport
        self.concurrency: int = concurrency

    async def __aenter__(self) -> Self:
        await self.sender.gate.scheduler.check()
        await self.transport.__aenter__()
        self.concurrency = min(self.concurrency, self.transport.room)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sender.dismiss(RuntimeError("the client was closed before this request had its turn; open a new one"))
        await self.transport.__aexit__(kind, error, trace)
        await self.sender.gate.scheduler.aclose()

    @property
    def count(self) -> Count:
        """What has been sent, and what came of it."""
        return self.sender.count

    @property
    def paused(self) -> bool:
        """Whether sending pauses, because the service seems to be down."""
        return self.sender.paused

    def snapshot(self) -> tuple[LaneStatus, ...]:
        """Return how every lane stands, and why it waits."""
        return self.sender.gate.scheduler.snapshot()

    async def send(
        self, body: Body, path: str = CHAT_PATH, *, priority: float = 0, deadline: float | None = None
    ) -> Reply:
        """Send one request and return its reply; raises what no waiting and no retry could cure."""
        asked = body if isinstance(body, Request) else request(body, path)
        try:
            return await self.sending(asked, priority, deadline)
        except JobStopped as why:
            self.sender.dismiss(why)
            raise

    def sending(self, asked: Request, priority: float, deadline: float | None = None) -> Awaitable[Reply]:
        """Return what sends a request once it is awaited; who is told to stop then tells the sender."""
        if asked.fields.get("stream"):
            raise RequestInvalid("the body asks for a stream", 'use client.stream(), or leave "stream" out')
        return self.sender.send(asked, partial(self.transport.post, asked), priority=priority, deadline=deadline)

    async def chat(self, model: str, prompt: str, *, system: str | None = None, **options: Any) -> Reply:
        """Ask one question; `reply.text` is the answer."""
        messages = [{"role": "system", "content": system}] if system else []
        return await self.send(
            {"model": model, "messages": [*messages, {"role": "user", "content": prompt}], **options}
        )

    async def embed(self, model: str, texts: str | list[str], **options: Any) -> list[list[float]]:
        """Return the embeddings of texts, in their order."""
        reply = await self.send({"model": model, "input": texts, **options}, EMBEDDINGS_PATH)
        try:
            rows = sorted(reply.json()["data"], key=lambda row: row["index"])
            return [row["embedding"] for row in rows]
        except (KeyError, TypeError):
            raise RequestFailed(
                reply.status, "no_embeddings", "the reply holds no embeddings; use a model and a base URL that embed"
            ) from None

    @asynccontextmanager
    async def stream(
        self, body: Body, path: str = CHAT_PATH, *, priority: float = 0, deadline: float | None = None
    ) -> AsyncIterator[Stream]:
        """Send one request that streams; iterate over the context's value for the bytes as they come."""
        asked = body if isinstance(body, Request) else request(body, path)
        if not asked.stream:
            raise RequestInvalid("the body asks for no stream", 'add "stream": true, or use client.send()')
        try:
            async with begin(self.sender, self.transport, asked, priority=priority, deadline=deadline) as stream:
                yield stream
        except JobStopped as why:
            self.sender.dismiss(why)
            raise

    def map(
        self,
        bodies: Iterable[Body] | AsyncIterable[Body],
        path: str = CHAT_PATH,
        *,
        ordered: bool = False,
        priority: float = 0,
        window: int | None = None,
    ) -> AsyncGenerator[Result]:
        """Send many and yield their results, as they come or in order.

        Bodies are pulled as there is room: at most `window` requests exist at any time. A request that fails is a
        result; what stops everything (no credits, a rejected key) is raised.
        """
        handle = partial(outcome, self, path, priority)
        several(bodies)
        # Room for as many results again as are under way, so that who has an answer need not wait for it to be taken.
        many = Many(handle, bodies, 2 * self.concurrency if window is None else window, self.concurrency)
        return many.run(ordered=ordered)

    def __repr__(self) -> str:
        return f"<Client {self.sender.gate.scheduler!r}>"


def several(bodies: object) -> None:
    """Raise for one body where many are asked for: what it iterates over are its keys or characters."""
    if isinstance(bodies, bytes | bytearray | str | Mapping | Request):
        raise RequestInvalid("map was given one body", "give it several, as in a list, or use send()")


async def outcome(client: Client, path: str, priority: float, index: int, body: Body) -> Result:
    """Send one of many and return what became of it; raises only what stops them all."""
    asked = body if isinstance(body, Request) else None
    try:
        asked = asked or request(body, path)  # type: ignore[arg-type]  # a Request was taken above
        return Result(index, asked, await client.sending(asked, priority))
    except JobStopped as why:
        client.sender.dismiss(why)
        raise
    except RateLimitError as error:
        return Result(index, asked, error=error)
