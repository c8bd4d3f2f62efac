"""One exchange through the SDK's own transport, and the reading of what comes back.

The SDK's client gets the very response its transport made, with its body put back: whole, or as a stream that listens
to what passes and ends its turn. Bytes are handed on as they came; what is read here of a compressed body is a copy.

There are two kinds of transports, and this is written once: as coroutines over a `Side`. That of a synchronous
transport never suspends, so its coroutines run to their end in one step, on the thread that calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Protocol, TypeVar

import msgspec

from ratelimit.admission.gate import GateTurn
from ratelimit.wire.judge import status_of
from ratelimit.wire.messages import Reply
from ratelimit.wire.sdk_desk import Desk
from ratelimit.wire.sdk_refusals import module_of
from ratelimit.wire.sdk_requests import plain
from ratelimit.wire.sse import Listener
from ratelimit.wire.transport import NoAnswer, Unsent

T = TypeVar("T")

# By name, for httpx and httpx2 name them alike, and so do the libraries that stand in for their transports.
_UNSENT = frozenset(("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"))
_NO_ANSWER = frozenset(("TimeoutException", "NetworkError", "RemoteProtocolError"))
_END_OF_CHAT = b"data: [DONE]"


class Side(Protocol):
    """One of the two kinds of transports."""

    async def send(self, request: Any) -> Any:
        """Send a request and return its response, whose body is still to be read."""
        ...

    def pieces(self, stream: Any) -> Any:
        """Return an iterator over a body."""
        ...

    async def next(self, pieces: Any) -> bytes | None:
        """Return the next piece of a body, or None."""
        ...

    async def close(self, stream: Any) -> None:
        """Give the connection back."""
        ...

    def tap(self, module: Any) -> type[Tap]:
        """Return the kind of stream the library wants."""
        ...


class Asynchronous:
    """Transports with `handle_async_request`."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def send(self, request: Any) -> Any:
        """Send a request."""
        return await self._transport.handle_async_request(request)

    def pieces(self, stream: Any) -> AsyncIterator[bytes]:
        """Return an iterator over a body."""
        return aiter(stream)

    async def next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece."""
        return await anext(pieces, None)

    async def close(self, stream: Any) -> None:
        """Give the connection back."""
        await stream.aclose()

    def tap(self, module: Any) -> type[Tap]:
        """Return an asynchronous stream."""
        return _derived(AsyncTap, module.AsyncByteStream)


class Synchronous:
    """Transports with `handle_request`; no coroutine here suspends."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def send(self, request: Any) -> Any:
        """Send a request."""
        return self._transport.handle_request(request)

    def pieces(self, stream: Any) -> Iterator[bytes]:
        """Return an iterator over a body."""
        return iter(stream)

    async def next(self, pieces: Iterator[bytes]) -> bytes | None:
        """Return the next piece."""
        return next(pieces, None)

    async def close(self, stream: Any) -> None:
        """Give the connection back."""
        stream.close()

    def tap(self, module: Any) -> type[Tap]:
        """Return a synchronous stream."""
        return _derived(SyncTap, module.SyncByteStream)


class Exchange:
    """A request of the SDK's, sent as often as the sender says, and the last thing that came of it."""

    def __init__(self, request: Any, side: Side, *, stream: bool) -> None:
        self.request = request
        self.response: Any = None
        self.failure: Exception | None = None
        self._side = side
        self._stream = stream

    async def __call__(self) -> Reply:
        """Send it once; raises `Unsent` or `NoAnswer`."""
        self.response = self.failure = None
        try:
            return await self._exchange()
        except Exception as error:
            names = {kind.__name__ for kind in type(error).__mro__}
            if names & _UNSENT:
                self.failure = error
                raise Unsent(_words(error)) from error
            if names & _NO_ANSWER:
                self.failure = error
                raise NoAnswer(_words(error)) from error
            raise

    async def _exchange(self) -> Reply:
        side = self._side
        response = await side.send(self.request)
        stream = response.stream
        told = Reply(response.status_code, plain(response.headers), b"")
        begun = False
        try:
            if self._stream and 200 <= told.status < 300:
                reply, begun = await self._begin(response, told)
            else:
                reply = self._whole(response, told, await _rest(side, side.pieces(stream)))
        finally:
            if not begun:
                await side.close(stream)
        self.response = response
        return reply

    async def _begin(self, response: Any, told: Reply) -> tuple[Reply, bool]:
        """Read a stream until it says something of substance; one that fails before that is read to its end.

        So is one that somebody on the way has compressed, for it says nothing that could be understood.
        """
        side, listener, held = self._side, Listener(), bytearray()
        pieces = side.pieces(response.stream)
        while not (listener.begun or listener.trouble) and (piece := await side.next(pieces)) is not None:
            held += piece
            listener.feed(piece)
        if (trouble := listener.trouble) and not listener.begun:
            self._whole(response, told, bytes(held) + await _rest(side, pieces))
            return Reply(status_of(trouble), told.headers, msgspec.json.encode({"error": trouble})), False
        response.stream = side.tap(module_of(self.request))(told, listener, bytes(held), pieces, response.stream)
        return told, True

    def _whole(self, response: Any, told: Reply, raw: bytes) -> Reply:
        module = module_of(self.request)
        response.stream = module.ByteStream(raw)
        if not _is_readable(told):
            readable = module.Response(told.status, headers=response.headers, content=raw)
            return Reply(told.status, told.headers, readable.content)
        return Reply(told.status, told.headers, raw)

    def keep(self, desk: Desk, turn: GateTurn) -> None:
        """Let the stream of the response end this turn."""
        self.response.stream.keep(desk, turn)


class Tap:
    """A response's stream on its way to the SDK: passed on as it comes, and the end of its turn."""

    def __init__(self, reply: Reply, listener: Listener, held: bytes, pieces: Any, stream: Any) -> None:
        self._reply = reply
        self._listener = listener
        self._held = held
        self._pieces = pieces
        self._stream = stream
        self._complete = _END_OF_CHAT in held
        self._desk: Desk | None = None
        self._turn: GateTurn | None = None

    def keep(self, desk: Desk, turn: GateTurn) -> None:
        """Take over a turn, to end it when the stream ends."""
        self._desk, self._turn = desk, turn

    def __del__(self) -> None:
        # Whoever stops reading need not close; without this its turn would stay open for ever. A finalizer can run in
        # the middle of anything, so it leaves the rest to the loop.
        self._end(complete=False, later=True)

    def _hear(self, piece: bytes) -> None:
        self._listener.feed(piece)
        self._complete = self._complete or _END_OF_CHAT in piece

    def _end(self, *, complete: bool = False, later: bool = False) -> None:
        """End the turn, once. What has told its usage or its failure is complete, though it was not read to its end."""
        desk, turn, self._turn = self._desk, self._turn, None
        if desk is None or turn is None:
            return
        reply, listener = self._reply, self._listener
        if complete or self._complete or listener.usage or listener.trouble:
            desk.post(lambda: desk.ended(turn, reply, listener), later=later)
        else:
            desk.post(lambda: desk.left(turn, reply, listener), later=later)


class AsyncTap(Tap):
    """A stream that is iterated asynchronously.

    What it reads from is a chain of generators. Should all of them become garbage together with it, each would be
    closed by itself and find the next one in the middle of that; so they are kept until the first can be closed alone.
    """

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self._loop = asyncio.get_running_loop()
        _unread[id(self._pieces)] = self._pieces

    def __del__(self) -> None:
        super().__del__()
        if (pieces := _unread.pop(id(self._pieces), None)) is not None:
            with suppress(RuntimeError):  # the loop is closed, and everything with it
                self._loop.call_soon_threadsafe(_forsake, pieces, self._stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._held:
            yield self._held
        async for piece in self._pieces:
            self._hear(piece)
            yield piece
        _unread.pop(id(self._pieces), None)
        self._end(complete=True)

    async def aclose(self) -> None:
        """Give the connection back, and end the turn if that is still to be done."""
        _unread.pop(id(self._pieces), None)
        try:
            await self._stream.aclose()
        finally:
            self._end()


_unread: dict[int, Any] = {}
_closing: set[asyncio.Task[None]] = set()  # a loop alone does not keep its tasks alive


def _forsake(pieces: Any, stream: Any) -> None:
    """Close what nobody reads any more."""
    task = asyncio.get_running_loop().create_task(_close(pieces, stream), name="closing a stream")
    _closing.add(task)
    task.add_done_callback(_closing.discard)


async def _close(pieces: Any, stream: Any) -> None:
    for each in (pieces, stream):
        with suppress(Exception):  # who has left does not want to hear of it
            await each.aclose()


class SyncTap(Tap):
    """A stream that is iterated synchronously."""

    def __iter__(self) -> Iterator[bytes]:
        if self._held:
            yield self._held
        for piece in self._pieces:
            self._hear(piece)
            yield piece
        self._end(complete=True)

    def close(self) -> None:
        """Give the connection back, and end the turn if that is still to be done."""
        try:
            self._stream.close()
        finally:
            self._end()


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a synchronous exchange has suspended")


@cache
def _derived(tap: type[Tap], wanted: type) -> type[Tap]:
    """Return a tap that is also what the library asserts a stream to be."""
    return type(tap.__name__, (tap, wanted), {})


async def _rest(side: Side, pieces: Any) -> bytes:
    found = []
    while (piece := await side.next(pieces)) is not None:
        found.append(piece)
    return b"".join(found)


def _is_readable(told: Reply) -> bool:
    return told.headers.get("content-encoding", "identity") in {"identity", ""}


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
