"""Many requests through a few workers: pulled as there is room, yielded as they come or in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Many(Generic[T, R]):
    """At most `window` items exist at any time, from when they are pulled to when their results are taken."""

    def __init__(
        self, handle: Callable[[int, T], Awaitable[R]], items: Iterable[T] | AsyncIterable[T], window: int
    ) -> None:
        self._handle = handle
        self._source = _numbered(items)
        self._window = window
        self._room = asyncio.Semaphore(window)
        self._pulling = asyncio.Lock()
        self._results: asyncio.Queue[tuple[int, R] | BaseException | None] = asyncio.Queue()

    async def run(self, *, ordered: bool) -> AsyncIterator[R]:
        """Yield every result; raises what a worker raises, after stopping the others."""
        workers = [asyncio.create_task(self._work(), name="map") for _ in range(self._window)]
        try:
            completed = self._completed()
            async for result in _in_order(completed) if ordered else _as_they_come(completed):
                self._room.release()
                yield result
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        try:
            while True:
                await self._room.acquire()
                async with self._pulling:
                    index, item = await anext(self._source)
                self._results.put_nowait((index, await self._handle(index, item)))
        except StopAsyncIteration:
            self._room.release()  # nobody need wait for room any more
            self._results.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the results are taken
            self._results.put_nowait(error)

    async def _completed(self) -> AsyncIterator[tuple[int, R]]:
        working = self._window
        while working:
            result = await self._results.get()
            if result is None:
                working -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result


async def _as_they_come(completed: AsyncIterator[tuple[int, R]]) -> AsyncIterator[R]:
    async for _, result in completed:
        yield result


async def _in_order(completed: AsyncIterator[tuple[int, R]]) -> AsyncIterator[R]:
    early: dict[int, R] = {}
    following = 0
    async for index, result in completed:
        early[index] = result
        while following in early:
            yield early.pop(following)
            following += 1


async def _numbered(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[tuple[int, T]]:
    index = 0
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield index, item
            index += 1
    else:
        for item in items:
            yield index, item
            index += 1
