"""Shared limits on one machine without a server: a file, and one short transaction per lease.

The file is in WAL mode and synced at checkpoints only, between leases and outside of the lock, so a lease does not wait
for the disk. What a power failure takes away has refilled by the time the machine is back, but for a day's limits,
whose last moments may be missing.

Before a transaction, and before the file is made ready, a program takes a lock of its own in a file beside it: SQLite
fails at once where two make a new file ready together, and lets those who wait for its lock sleep for so long that with
eight programs some come too late time after time. A program that is frozen within a transaction keeps the others out,
who give up after a moment and go on as without a store.

Calls run on a thread of the store's own, so that a slow disk holds up no event loop.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event
from typing import TypeVar

import msgspec

from ratelimit.admission.shared.decision import decide, see
from ratelimit.admission.shared.state import Lane, keeps_until
from ratelimit.admission.shared.store import Answer, Ask, LaneSeen, StoreAway
from ratelimit.errors import StoreUnusable

T = TypeVar("T")

_VERSION = 1
_BUSY = 0.25  # seconds until a locked file is given up for now
_PATIENCE = 5.0  # and until it is given up by who opens it
_CHECKPOINT = 256  # leases to a program from one to the next
_LOOK = 0.001  # seconds between two looks at whether it is still locked
_BROKEN = ("not a database", "malformed", "no such column", "no such table")


class SqliteStore:
    """Lanes in a file; `clock` tells whole microseconds, the same to every program on the machine."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self.path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._lock = -1
        self._leases = 0
        self._closing = Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ratelimit-shared")
        self._decode = msgspec.msgpack.Decoder(Lane).decode
        self._encode = msgspec.msgpack.Encoder().encode

    async def check(self) -> None:
        """Raise for a file that cannot be used."""
        await self._call(self._open)

    async def lease(self, group: str, ask: Ask) -> Answer:
        """Take a program's word and give it a lease."""
        answer = await self._call(lambda: self._lease(group, ask))
        self._leases += 1
        if self._leases % _CHECKPOINT == 0 and self._connection is not None and not self._closing.is_set():
            self._thread.submit(self._connection.execute, "PRAGMA wal_checkpoint(PASSIVE)")
        return answer

    async def peek(self) -> list[LaneSeen]:
        """Return every lane that is in use."""
        return await self._call(self._peek)

    async def aclose(self) -> None:
        """Close the file."""
        if not self._closing.is_set():
            closed = self._call(self._close)  # after what the thread is at: it may be opening it
            self._closing.set()
            self._thread.shutdown(wait=False)
            await asyncio.shield(closed)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            os.close(self._lock)
            self._connection = None

    def _call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._closing.is_set():
            raise StoreAway(f"{self.path}: it is closed here")
        return asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._translated(work))

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
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        """Open the file and the lock beside it, or neither."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._create()
            self._lock = self._descriptor(self.path.with_name(f"{self.path.name}-lock"))
        except OSError as error:
            why = f"cannot be opened for writing ({error.strerror})"
            raise StoreUnusable(str(self.path), why, "set XDG_STATE_HOME to a directory of yours") from None
        with ExitStack() as undoing:
            undoing.callback(os.close, self._lock)
            opened = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            undoing.callback(opened.close)
            try:
                with self._alone(_PATIENCE):
                    self._make_ready(opened)
            except StoreAway:
                why = f"has been locked by another program for {_PATIENCE:g} s"
                raise StoreUnusable(str(self.path), why, "let that program go on, or end it") from None
            undoing.pop_all()
        return opened

    def _create(self) -> None:
        """Make the file, if there is none. One that exists is not opened here.

        To close it would take away SQLite's locks on it of every other store in this process. Any program that ends
        then takes itself for the last, and deletes the log that those still write to.
        """
        try:
            os.close(self._descriptor(self.path, os.O_EXCL))
        except FileExistsError:
            if not stat.S_ISREG(os.lstat(self.path).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file") from None
            if not os.access(self.path, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    def _descriptor(self, path: Path, more: int = 0) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | more, 0o600)

    def _make_ready(self, opened: sqlite3.Connection) -> None:
        opened.execute("PRAGMA journal_mode = WAL")
        opened.execute("PRAGMA synchronous = NORMAL")
        opened.execute("PRAGMA wal_autocheckpoint = 0")
        found = opened.execute("PRAGMA user_version").fetchone()[0]
        if found not in {0, _VERSION}:
            raise StoreUnusable(
                str(self.path), f"was written by another version ({found})", "end all programs and move it away"
            )
        opened.execute("CREATE TABLE IF NOT EXISTS lanes (id TEXT PRIMARY KEY, until REAL, state BLOB) STRICT")
        if found == 0:
            opened.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _alone(self, patience: float = _BUSY) -> Iterator[None]:
        """Keep other programs out, who look often enough that nobody waits much longer than the others do."""
        looks = round(patience / _LOOK)
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                looks -= 1
                if looks < 0 or self._closing.wait(_LOOK):
                    raise StoreAway(f"{self.path}: another program has locked it") from None
            except OSError as error:
                why = f"cannot be locked ({error.strerror})"
                raise StoreUnusable(str(self.path), why, "set XDG_STATE_HOME to a directory on a local disk") from None
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _lease(self, group: str, ask: Ask) -> Answer:
        connection = self._open()
        with self._alone():
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
