"""A streamed reply on its way through the gate: the turn stays open until the stream has ended.

Nothing is handed on before the stream has said something of substance, so that one that begins with 200 and fails at
once is retried like any other failure. What has been handed on cannot be taken back: from then on a failure is the
caller's to see, after the bytes that tell of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec

from ratelimit.admission.gate import GateTurn
from ratelimit.errors import DeadlinePassed, NotAnswered, RateLimitError
from ratelimit.limits.headers import parse
from ratelimit.wire.judge import Verdict, broken, judge, judge_failure, status_of, trouble_verdict
from ratelimit.wire.messages import Reply, Request, Trouble
from ratelimit.wire.retry import Again
from ratelimit.wire.sender import Sender
from ratelimit.wire.sse import Listener
from ratelimit.wire.transport import NoAnswer, Transport


class Opening:
    """A stream that has said something of substance, and what is still to come."""

    def __init__(self) -> None:
        self.listener: Listener = Listener()
        self.first: bytes = b""
        self.rest: AsyncIterator[bytes]

    async def read(self, reply: Reply) -> Reply:
        """Return a reply to judge: itself if it begins well, else what is wrong with it as a reply of its own."""
        if not 200 <= reply.status < 300:
            return Reply(reply.status, reply.headers, b"".join([piece async for piece in self.rest]))
        listener = self.listener
        held = bytearray()
        async for piece in self.rest:
            held += piece
            listener.feed(piece)
            if listener.begun or listener.trouble:
                break
        else:
            listener.finish()
        self.first = bytes(held)
        if listener.begun:
            return reply
        if listener.trouble:
            return _failed(listener.trouble, reply)
        # It ended without an event. Some services answer whole, whatever was asked for.
        whole = Reply(reply.status, reply.headers, self.first)
        verdict = judge(whole)
        if verdict.kind != "done":
            return _failed((whole.envelope() or (None,))[0] or broken(self.first), reply)
        listener.usage = verdict.usage
        return reply


def _failed(trouble: Trouble, reply: Reply) -> Reply:
    return Reply(status_of(trouble), reply.headers, msgspec.json.encode({"error": trouble}))


class Stream:
    """The bytes of a streamed reply, as they come, to be iterated over once; ends its turn when they end."""

    def __init__(self, reply: Reply, turn: GateTurn, sender: Sender, opening: Opening, deadline: Deadline) -> None:
        self.reply = reply
        self._turn = turn
        self._sender = sender
        self._listener = opening.listener
        self._first = opening.first
        self._rest = opening.rest
        self._deadline = deadline
        self._pieces = self._read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def _read(self) -> AsyncIterator[bytes]:
        listener = self._listener
        if self._first:
            yield self._first
        try:
            while (piece := await self._next()) is not None:
                listener.feed(piece)
                yield piece
            listener.finish()
            if listener.begun and not (listener.ended or listener.trouble):
                raise self._broken_off(NoAnswer("the stream stopped before its end"))
            self._end()
        except RateLimitError:
            self._sender.count.failed += 1
            raise

    async def _next(self) -> bytes | None:
        try:
            return await self._deadline.within(anext(self._rest, None))
        except NoAnswer as failure:
            if self._listener.ended or self._listener.trouble:  # there was nothing left to say
                return None
            raise self._broken_off(failure) from None

    def _broken_off(self, failure: NoAnswer) -> NotAnswered:
        if self._turn.how is None:
            self._sender.lost(self._turn, failure, self._listener.names)
            with suppress(Again):
                self._sender.conclude(self._turn, judge_failure(failure))
        return NotAnswered(str(failure), sent=True)

    def _end(self) -> None:
        """Settle by what the stream has said of itself; raises where it has failed."""
        if self._turn.how is not None:
            return
        observed, listener = parse(self.reply.headers), self._listener
        verdict = Verdict("done", observed, usage=listener.usage)
        if listener.trouble:
            verdict = trouble_verdict(status_of(listener.trouble), listener.trouble, observed, self.reply.request_id)
        self._sender.settle(self._turn, verdict, listener.names)
        try:
            self._sender.conclude(self._turn, verdict)
        except Again as again:  # too late for that: what came before has been handed on
            raise again.error from None

    def leave(self) -> None:
        """End the turn of a stream that was not read to its end: the service has probably charged it."""
        if self._turn.how is not None:
            return
        if self._listener.ended or self._listener.usage or self._listener.trouble:
            with suppress(RateLimitError):  # whoever has left does not want to hear of it
                self._end()
            return
        observed = parse(self.reply.headers)
        if observed.readings:
            self._turn.observe(observed)
        self._sender.lost(self._turn, asyncio.CancelledError(), self._listener.names)


class Deadline:
    """The deadline of a stream, which counts from when it was asked for to its last byte."""

    def __init__(self, deadline: float | None) -> None:
        self._seconds = deadline
        self._end = None if deadline is None else asyncio.get_running_loop().time() + deadline

    async def within(self, piece: Awaitable[bytes | None]) -> bytes | None:
        """Wait for a piece; raises `DeadlinePassed`."""
        if self._seconds is None:
            return await piece
        timer = asyncio.timeout_at(self._end)
        try:
            async with timer:
                return await piece
        except TimeoutError:
            if not timer.expired():
                raise
            raise DeadlinePassed(self._seconds, "the stream has not ended") from None


@asynccontextmanager
async def begin(
    sender: Sender, transport: Transport, asked: Request, *, priority: float, deadline: float | None
) -> AsyncIterator[Stream]:
    """Send a request that streams; the context's value is the stream."""
    ends = Deadline(deadline)
    async with AsyncExitStack() as opened:
        opening = Opening()

        async def exchange() -> Reply:
            nonlocal opening
            opening = Opening()
            begun, opening.rest = await opened.enter_async_context(transport.stream(asked))
            try:
                reply = await opening.read(begun)
            except BaseException:
                await opened.aclose()
                raise
            if reply is not begun:  # the connection is not kept while something else is waited for
                await opened.aclose()
            return reply

        reply, turn = await sender.open(asked, exchange, priority=priority, deadline=deadline)
        stream = Stream(reply, turn, sender, opening, ends)
        try:
            yield stream
        finally:
            stream.leave()
