"""Many requests through a few workers: pulled as there is room, yielded as they come or in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def checked(window: int) -> int:
    """Return a window; raises for one in which nothing has room."""
    if window < 1:
        raise ValueError(f"window is {window}; at least one request must have room")
    return window


class InOrder(Generic[R]):
    """Results that come as they like, handed on in the order of their items."""

    def __init__(self) -> None:
        self._early: dict[int, R] = {}
        self._following = 0

    def __len__(self) -> int:
        return len(self._early)

    def after(self, index: int, result: R) -> Iterator[R]:
        """Yield all whose turn it is once this one is there."""
        self._early[index] = result
        while self._following in self._early:
            yield self._early.pop(self._following)
            self._following += 1

    def rest(self) -> Iterator[R]:
        """Yield those that stand behind one that will not come."""
        return (self._early[index] for index in sorted(self._early))


class Many(Generic[T, R]):
    """At most `window` items exist at any time, from when they are pulled to when their results are taken."""

    def __init__(
        self, handle: Callable[[int, T], Awaitable[R]], items: Iterable[T] | AsyncIterable[T], window: int, workers: int
    ) -> None:
        self._handle = handle
        self._items = _Asynchronous(items) if isinstance(items, AsyncIterable) else enumerate(items)
        self._room = checked(window)
        self._workers = min(workers, window)
        self._idle: deque[asyncio.Future[None]] = deque()  # workers that wait for room
        self._done: deque[tuple[int, R]] = deque()
        self._something = asyncio.Event()
        self._failure: BaseException | None = None
        self._working = 0

    async def run(self, *, ordered: bool) -> AsyncGenerator[R]:
        """Yield every result; what a worker raises ends the pulling, and is raised after the results on the way."""
        self._working = self._workers
        workers = [asyncio.create_task(self._work(), name="map") for _ in range(self._workers)]
        order = InOrder[R]()
        try:
            while self._done or await self._wait():
                index, result = self._done.popleft()
                for each in order.after(index, result) if ordered else (result,):
                    self._free()
                    yield each
            for each in order.rest():
                yield each
            if self._failure:
                raise self._failure
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        try:
            while True:
                if self._room:
                    self._room -= 1
                else:
                    await self._until_free()
                if self._failure:
                    break
                items = self._items
                if (item := next(items, None) if isinstance(items, enumerate) else await items.pull()) is None:
                    break
                self._done.append((item[0], await self._handle(*item)))
                self._something.set()
        except BaseException as error:  # whatever it is, it is raised where the results are taken
            self._failure = self._failure or error
            if not isinstance(error, Exception):
                raise
        finally:
            self._working -= 1
            self._free()  # for the next to see that there is nothing left, and so on
            self._something.set()

    async def _wait(self) -> bool:
        """Wait for a result; false if there will be none."""
        while not self._done and self._working:
            self._something.clear()
            await self._something.wait()
        return bool(self._done)

    def _free(self) -> None:
        """Give up the place of one item, to a worker that waits for it if one does."""
        while self._idle:
            if not (place := self._idle.popleft()).done():
                place.set_result(None)
                return
        self._room += 1

    async def _until_free(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(place)
        await place


class _Asynchronous(Generic[T]):
    """Items with their numbers, out of an asynchronous iterable: one at a time, for it may be a generator."""

    def __init__(self, items: AsyncIterable[T]) -> None:
        self._items: AsyncIterator[T] = aiter(items)
        self._count = 0
        self._pulling = asyncio.Lock()

    async def pull(self) -> tuple[int, T] | None:
        async with self._pulling:
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                return None
            self._count += 1
            return self._count - 1, item
