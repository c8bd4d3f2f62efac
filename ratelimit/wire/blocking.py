"""The client for programs without asyncio: the same calls, waiting where the others are awaited.

    with BlockingClient(ratelimit.open(tier="tier-1")) as client:
        print(client.chat("gpt-4o-mini", "Why is the sky blue?").text)

It runs an asynchronous client on a thread of its own. Any number of threads may call at once; they stand in the same
lanes. What a caller hands to `map` is pulled on the caller's own thread, so that a generator that reads a file or waits
holds up nobody else. A call that is interrupted (Ctrl-C) takes its requests out of the lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from ratelimit.admission.blocking import Background
from ratelimit.admission.scheduler import LaneStatus
from ratelimit.errors import JobStopped
from ratelimit.limits.content import CHAT_PATH
from ratelimit.wire.client import Body, Client, Result, outcome, several
from ratelimit.wire.many import InOrder, checked
from ratelimit.wire.messages import Reply
from ratelimit.wire.sender import Count


class BlockingClient:
    """A `Client` for threads; takes one that is not open yet, and opens and closes it.

    >>> import ratelimit
    >>> with ratelimit.BlockingClient(ratelimit.open(tier="tier-1")) as client:
    ...     client.chat("gpt-4o-mini", "Why is the sky blue?")
    Reply(status=200)
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._background: Background | None = None
        self._opened = False

    def __enter__(self) -> Self:
        if self._opened:
            raise RuntimeError("a client is opened once; make a new one")
        self._opened = True
        self._background = Background()
        try:
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is on the way, and end the thread."""
        if self._background is not None:
            self._background.refuse_to_wait_here()
        background, self._background = self._background, None
        if background is not None:
            try:
                background.run(self._client.__aexit__(None, None, None))
            finally:
                background.close()

    @property
    def _loop(self) -> Background:
        if self._background is None:
            raise RuntimeError("open the client with `with` before sending")
        return self._background

    @property
    def count(self) -> Count:
        """What has been sent, and what came of it."""
        return self._client.count

    def snapshot(self) -> tuple[LaneStatus, ...]:
        """Return how every lane stands, and why it waits."""
        return self._loop.call(self._client.snapshot)

    def send(self, body: Body, path: str = CHAT_PATH, *, priority: float = 0, deadline: float | None = None) -> Reply:
        """Send one request and return its reply; raises what no waiting and no retry could cure."""
        return self._loop.run(self._client.send(body, path, priority=priority, deadline=deadline))

    def chat(self, model: str, prompt: str, *, system: str | None = None, **options: Any) -> Reply:
        """Ask one question; `reply.text` is the answer."""
        return self._loop.run(self._client.chat(model, prompt, system=system, **options))

    def embed(self, model: str, texts: str | list[str], **options: Any) -> list[list[float]]:
        """Return the embeddings of texts, in their order."""
        return self._loop.run(self._client.embed(model, texts, **options))

    @contextmanager
    def stream(
        self, body: Body, path: str = CHAT_PATH, *, priority: float = 0, deadline: float | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Send one request that streams; the context's value is an iterator over the bytes as they come."""
        loop = self._loop
        opened = self._client.stream(body, path, priority=priority, deadline=deadline)
        try:
            stream = loop.run(opened.__aenter__())
        except BaseException:
            loop.finish(opened.__aexit__(None, None, None))  # does nothing unless it was opened in that very moment
            raise
        try:
            yield _pieces(loop, aiter(stream))
        finally:
            loop.finish(opened.__aexit__(None, None, None))

    def map(
        self,
        bodies: Iterable[Body],
        path: str = CHAT_PATH,
        *,
        ordered: bool = False,
        priority: float = 0,
        window: int | None = None,
    ) -> Iterator[Result]:
        """Send many and yield their results, as they come or in order; as `Client.map`, for plain iterables.

        Bodies are pulled while no result is ready: at most `window` requests exist at any time. What their iterable
        raises is raised after the results of what is on the way.
        """
        several(bodies)
        most = checked(2 * self._client.concurrency if window is None else window)
        loop, client = self._loop, self._client

        def send(item: tuple[int, Body]) -> Future[Result]:
            return loop.submit(outcome(client, path, priority, *item))

        return _results(loop, _Source(bodies), send, most, ordered=ordered)

    def __repr__(self) -> str:
        return f"<Blocking{repr(self._client)[1:]}"


class _Source:
    """Bodies with their numbers, up to the last one or to what ends the pulling."""

    def __init__(self, bodies: Iterable[Body]) -> None:
        self._items = enumerate(bodies)
        self._exhausted = False
        self.failure: Exception | None = None

    def pull(self) -> tuple[int, Body] | None:
        """Return the next, or None if there is none."""
        if self._exhausted:
            return None
        try:
            item = next(self._items, None)
        except Exception as error:  # noqa: BLE001 - it is raised where the results are taken
            self.end(error)
            return None
        self._exhausted = item is None
        return item

    def end(self, failure: Exception) -> None:
        """Pull no more, and remember why."""
        self.failure = self.failure or failure
        self._exhausted = True


def _results(
    loop: Background, source: _Source, send: Callable[[tuple[int, Body]], Future[Result]], most: int, *, ordered: bool
) -> Iterator[Result]:
    done: SimpleQueue[Future[Result]] = SimpleQueue()
    flying: set[Future[Result]] = set()
    order = InOrder[Result]()
    try:
        while True:
            while len(flying) + len(order) < most and (item := source.pull()) is not None:
                future = send(item)
                flying.add(future)
                future.add_done_callback(done.put)
                if not done.empty():  # who pulls slowly need not wait for the rest
                    break
            if not flying:
                break
            future = done.get()
            flying.discard(future)
            try:
                result = future.result()
            except JobStopped as error:  # what is on the way is still received
                source.end(error)
                continue
            yield from order.after(result.index, result) if ordered else (result,)
        yield from order.rest()
        if source.failure:
            raise source.failure
    finally:
        loop.cancel(flying)


def _pieces(loop: Background, pieces: Any) -> Iterator[bytes]:
    while (piece := loop.run(_next(pieces))) is not None:
        yield piece


async def _next(pieces: Any) -> bytes | None:
    piece: bytes | None = await anext(pieces, None)
    return piece
