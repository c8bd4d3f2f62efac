"""A streamed reply on its way through the gate: the turn stays open until the stream has ended.

Nothing is handed on before the stream has said something of substance, so that one that begins with 200 and fails at
once is retried like any other failure. What has been handed on cannot be taken back: from then on a failure is the
caller's to see, after the bytes that tell of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from ratelimit.admission.gate import GateTurn
from ratelimit.errors import NotAnswered
from ratelimit.limits.headers import parse
from ratelimit.wire.judge import Verdict, status_of, trouble_verdict
from ratelimit.wire.messages import Reply, Request
from ratelimit.wire.retry import Again
from ratelimit.wire.sender import Sender
from ratelimit.wire.sse import Listener
from ratelimit.wire.transport import NoAnswer, Transport


class Opening:
    """A stream that has said something of substance, and what is still to come."""

    def __init__(self) -> None:
        self.listener = Listener()
        self.first = b""
        self.rest: AsyncIterator[bytes]

    async def read(self, reply: Reply) -> Reply:
        """Return a reply to judge: itself if it begins well, else what is wrong with it as a reply of its own."""
        if not 200 <= reply.status < 300:
            return Reply(reply.status, reply.headers, b"".join([piece async for piece in self.rest]))
        held = bytearray()
        async for piece in self.rest:
            held += piece
            self.listener.feed(piece)
            if self.listener.begun or self.listener.trouble:
                break
        self.first = bytes(held)
        if (trouble := self.listener.trouble) and not self.listener.begun:
            return Reply(status_of(trouble), reply.headers, msgspec.json.encode({"error": trouble}))
        return reply


class Stream:
    """The bytes of a streamed reply, as they come; ends its turn when they end."""

    def __init__(self, reply: Reply, turn: GateTurn, sender: Sender, opening: Opening) -> None:
        self.reply = reply
        self._turn = turn
        self._sender = sender
        self._listener = opening.listener
        self._first = opening.first
        self._rest = opening.rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            yield self._first
        try:
            async for piece in self._rest:
                self._listener.feed(piece)
                yield piece
        except NoAnswer as failure:
            self._turn.unknown()
            raise NotAnswered(str(failure), sent=True) from None
        self._end()

    def _end(self) -> None:
        """Settle by what the stream has said of itself; raises where it has failed."""
        observed, listener = parse(self.reply.headers), self._listener
        verdict = Verdict("done", observed, usage=listener.usage)
        if listener.trouble:
            verdict = trouble_verdict(status_of(listener.trouble), listener.trouble, observed, self.reply.request_id)
        self._sender.settle(self._turn, verdict)
        try:
            self._sender.conclude(self._turn, verdict)
        except Again as again:  # too late for that: what came before has been handed on
            raise again.error from None

    def leave(self) -> None:
        """End the turn of a stream that was not read to its end: the service has probably charged it."""
        if self._turn.how is None:
            observed = parse(self.reply.headers)
            if observed.readings:
                self._turn.observe(observed)
            self._turn.unknown()


@asynccontextmanager
async def begin(
    sender: Sender, transport: Transport, asked: Request, *, priority: float, deadline: float | None
) -> AsyncIterator[Stream]:
    """Send a request that streams; the context's value is the stream."""
    opened = AsyncExitStack()
    opening = Opening()

    async def exchange() -> Reply:
        nonlocal opening
        await opened.aclose()
        opening = Opening()
        reply, opening.rest = await opened.enter_async_context(transport.stream(asked))
        return await opening.read(reply)

    try:
        async with opened:
            reply, turn = await sender.open(asked, exchange, priority=priority, deadline=deadline)
            stream = Stream(reply, turn, sender, opening)
            try:
                yield stream
            finally:
                stream.leave()
    except NoAnswer as failure:  # the transport's time-out, which is known to be one only when its context ends
        raise NotAnswered(str(failure), sent=True) from None
