"""A pool of connections for each event loop that a client of the SDK is used on, and for each process.

A connection belongs to the loop it was opened on. The HTTP client has one pool for all: on the next loop (`asyncio.run`
once more, a thread with a loop of its own) it sends a request over a connection whose answer nobody can hear, so the
call fails and may be billed. After a fork, two processes would write to one connection.

So who comes first keeps the transport that was given, and each of the others gets one made like it, without
connections. A transport of a kind that is not known here serves all.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Place = asyncio.AbstractEventLoop | int
"""Where connections belong: a loop, or the number of a process."""


class Pools:
    """Transports that are alike, one for each place."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._another = _maker(given)
        self._first: Place | None = None
        self._others: dict[Place, Any] = {}
        self._lock = threading.Lock()

    def of(self, place: Place) -> Any:
        """Return the transport whose connections belong there."""
        if place == self._first or self._another is None:
            return self._given
        with self._lock:
            if self._first is None:
                self._first = place
                return self._given
            if (found := self._others.get(place)) is None:
                # Connections hold their loop, so they are let go of once it has ended.
                self._others = {where: kept for where, kept in self._others.items() if not _has_ended(where)}
                found = self._others[place] = self._another()
            return found

    def pop(self, place: Place) -> list[Any]:
        """Return what there is to close at a place besides the given transport; it is not kept any more."""
        with self._lock:
            found = self._others.pop(place, None)
            return [] if found is None else [found]

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Be where the given transport is closed, whose loop may have ended, and all its connections with it."""
        try:
            yield
        except RuntimeError:
            if not _has_ended(self._first):
                raise


def _has_ended(place: Place | None) -> bool:
    return isinstance(place, asyncio.AbstractEventLoop) and place.is_closed()


def _maker(transport: Any) -> Callable[[], Any] | None:
    """Return what makes a transport like this one without connections, or None where that is not known."""
    if type(transport).__name__ == "AiohttpTransport" and not hasattr(transport.client, "close"):
        unused = copy.copy(transport)  # it opens a session at its first request, and so does each copy of this
        return lambda: copy.copy(unused)
    pool = getattr(transport, "_pool", None)
    if all(hasattr(pool, name) for name in ("_connections", "_requests", "_optional_thread_lock")):
        return lambda: _without_connections(transport)
    return None


def _without_connections(transport: Any) -> Any:
    another = copy.copy(transport)
    pool = another._pool = copy.copy(transport._pool)  # noqa: SLF001 - there is no public way to it
    pool._connections, pool._requests = [], []  # noqa: SLF001 - as above
    pool._optional_thread_lock = type(pool._optional_thread_lock)()  # noqa: SLF001 - as above
    return another
