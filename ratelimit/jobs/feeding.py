"""How rows come in: a place for each, and a thread of its own for an input that keeps its reader waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from itertools import islice

from ratelimit.jobs.source import Row, Source, Wanted

_SLICE = 0.005  # seconds of reading before everybody else has a turn
_AHEAD = 16  # rows read from a pipe before there is room for them


class Room:
    """Places for rows, shared out evenly among those who feed, so that a slow lane does not take them all."""

    def __init__(self, places: int, feeders: int) -> None:
        self._free = [places // feeders + (number < places % feeders) for number in range(feeders)]
        self._waiting: list[asyncio.Future[None] | None] = [None] * feeders
        self._feeding = list(range(feeders))

    async def take(self, feeder: int) -> None:
        """Wait for a place."""
        while not self._free[feeder]:
            waiting = self._waiting[feeder] = asyncio.get_running_loop().create_future()
            await waiting
        self._free[feeder] -= 1

    def give(self, feeder: int) -> None:
        """Give a place back: to its feeder, or to another where that one has come to its end."""
        if feeder not in self._feeding:
            if not self._feeding:
                return
            feeder = self._feeding[0]
            self._feeding.append(self._feeding.pop(0))
        self._free[feeder] += 1
        waiting = self._waiting[feeder]
        if waiting and not waiting.done():
            waiting.set_result(None)

    def leave(self, feeder: int) -> None:
        """Feed no more; the places go to the others."""
        if feeder in self._feeding:
            self._feeding.remove(feeder)
            free, self._free[feeder] = self._free[feeder], 0
            for _ in range(free):
                self.give(feeder)


async def rows(source: Source, wanted: Wanted | None = None, most: int | None = None) -> AsyncGenerator[Row, None]:
    """Yield the rows of a source, or the first of them, or the wanted, while whatever else there is goes on."""
    if not source.rereadable:
        async with aclosing(_from_thread(source)) as incoming:
            async for row in incoming:
                yield row
        return
    clock = time.perf_counter
    until = clock() + _SLICE

    def due(place: int) -> bool:  # a long row of lines that nobody wants is looked into once in a while, for its time
        return wanted is None or wanted(place) or clock() > until

    for row in islice(source.rows(due if wanted else None), most):
        if wanted is None or wanted(row.place):
            yield row
        if clock() > until:
            await asyncio.sleep(0)
            until = clock() + _SLICE


async def _from_thread(source: Source) -> AsyncGenerator[Row, None]:
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Row | BaseException | None]()
    room = threading.Semaphore(_AHEAD)
    over = threading.Event()

    def put(item: Row | BaseException | None) -> None:
        if not over.is_set():
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def read() -> None:
        try:
            for row in source.rows():
                room.acquire()
                if over.is_set():
                    return
                put(row)
            put(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits for rows is to hear of it
            with suppress(RuntimeError):  # the loop was closed while this waited for input
                put(error)

    # A daemon, for it may wait for ever, and nobody is to wait for it.
    threading.Thread(target=read, name="input", daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item
    finally:
        over.set()
        room.release()
