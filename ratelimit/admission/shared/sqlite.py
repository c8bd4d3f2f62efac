"""Shared limits on one machine without a server: a file, and one short transaction per lease.

The file is in WAL mode and synced at checkpoints only, so a lease does not wait for the disk. What a power failure
takes away has refilled by the time the machine is back, but for a day's limits, whose last moments may be missing.

A transaction takes the write lock at its beginning. A program that is frozen within one keeps the others out, who give
up after a moment and go on as without a store.

Calls run on a thread of the store's own, so that a slow disk holds up no event loop.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec

from ratelimit.admission.shared.decision import decide, see
from ratelimit.admission.shared.state import Lane, keeps_until
from ratelimit.admission.shared.store import Answer, Ask, LaneSeen, StoreAway
from ratelimit.errors import StoreUnusable

T = TypeVar("T")

_VERSION = 1
_BUSY = 0.25  # seconds until a locked file is given up for now
_BROKEN = ("not a database", "malformed", "no such column", "no such table")


class SqliteStore:
    """Lanes in a file; `clock` tells whole microseconds, the same to every program on the machine."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self.path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ratelimit-shared")
        self._decode = msgspec.msgpack.Decoder(Lane).decode
        self._encode = msgspec.msgpack.Encoder().encode

    async def check(self) -> None:
        """Raise for a file that cannot be used."""
        await self._call(self._open)

    async def lease(self, group: str, ask: Ask) -> Answer:
        """Take a program's word and give it a lease."""
        return await self._call(lambda: self._lease(group, ask))

    async def peek(self) -> list[LaneSeen]:
        """Return every lane that is in use."""
        return await self._call(self._peek)

    async def aclose(self) -> None:
        """Close the file."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await self._call(connection.close)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._translated(work))

    def _translated(self, work: Callable[[], T]) -> T:
        """Run `work`, with what goes wrong as one of our errors."""
        try:
            return work()
        except (sqlite3.Error, msgspec.DecodeError) as error:
            why = str(error)
            if isinstance(error, msgspec.DecodeError) or any(sign in why for sign in _BROKEN):
                raise StoreUnusable(
                    str(self.path), "holds something else than shared limits", "move it away, or name another file"
                ) from None
            if "unable to open" in why or "readonly" in why or "read-only" in why:
                raise StoreUnusable(
                    str(self.path), "cannot be opened for writing", "set XDG_STATE_HOME to a directory of yours"
                ) from None
            raise StoreAway(f"{self.path}: {why}") from None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            except OSError as error:
                why = f"cannot be opened for writing ({error.strerror})"
                raise StoreUnusable(str(self.path), why, "set XDG_STATE_HOME to a directory of yours") from None
            opened = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            opened.execute("PRAGMA journal_mode = WAL")
            opened.execute("PRAGMA synchronous = NORMAL")
            found = opened.execute("PRAGMA user_version").fetchone()[0]
            if found not in {0, _VERSION}:
                opened.close()
                raise StoreUnusable(
                    str(self.path), f"was written by another version ({found})", "end all programs and move it away"
                )
            opened.execute("CREATE TABLE IF NOT EXISTS lanes (id TEXT PRIMARY KEY, until REAL, state BLOB) STRICT")
            if found == 0:
                opened.execute(f"PRAGMA user_version = {_VERSION}")
            self._connection = opened
        return self._connection

    def _lease(self, group: str, ask: Ask) -> Answer:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            now = self._clock()
            row = connection.execute("SELECT state FROM lanes WHERE id = ?", (group,)).fetchone()
            lane = self._decode(row[0]) if row else Lane()
            answer = decide(lane, ask, now)
            until = keeps_until(lane, now)
            connection.execute("REPLACE INTO lanes VALUES (?, ?, ?)", (group, until, self._encode(lane)))
            if row is None:
                connection.execute("DELETE FROM lanes WHERE until < ?", (now,))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return answer

    def _peek(self) -> list[LaneSeen]:
        now = self._clock()
        with closing(self._open().execute("SELECT state FROM lanes WHERE until >= ?", (now,))) as rows:
            return [see(self._decode(state), now) for (state,) in rows]
