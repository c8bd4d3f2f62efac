"""The file of shared limits: programs that come at once, and one that holds on to it."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sharing import QUESTION, Hands

from ratelimit.admission.shared import sqlite
from ratelimit.admission.shared.sqlite import SqliteStore
from ratelimit.admission.shared.store import StoreAway
from ratelimit.errors import StoreUnusable

pytestmark = pytest.mark.real_time  # a thread's answer takes a moment


async def test_programs_that_make_a_new_file_ready_at_once(tmp_path: Path) -> None:
    for turn in range(40):
        stores = [SqliteStore(tmp_path / str(turn), Hands()) for _ in range(8)]
        assert await asyncio.gather(*(store.check() for store in stores), return_exceptions=True) == [None] * 8
        await asyncio.gather(*(store.aclose() for store in stores))


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[SqliteStore, SqliteStore]]:
    frozen, other = (SqliteStore(tmp_path / "file", Hands()) for _ in range(2))
    await frozen.check()
    yield frozen, other
    await asyncio.gather(frozen.aclose(), other.aclose())


async def test_opening_while_another_program_is_frozen_in_the_middle(
    stores: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.1)
    frozen, other = stores
    with frozen._alone(), pytest.raises(StoreUnusable) as said:
        await other.check()
    assert str(said.value) == (
        f"shared limits at {other.path}: has been locked by another program for 0.1 s; let that program go on, or end "
        f"it"
    )
    await other.check()


async def test_a_lease_while_another_program_is_frozen_in_the_middle(stores: tuple[SqliteStore, SqliteStore]) -> None:
    frozen, other = stores
    await other.check()
    with frozen._alone(), pytest.raises(StoreAway) as said:
        await other.lease("group", QUESTION)
    assert str(said.value) == f"{other.path}: another program has locked it"
    assert (await other.lease("group", QUESTION)).granted == [1]


async def test_a_store_that_is_opened_takes_no_locks_from_another_of_the_same_process(tmp_path: Path) -> None:
    one, two = (SqliteStore(tmp_path / "file", Hands()) for _ in range(2))
    for store in (one, two):
        await store.lease("group", QUESTION)
    come_and_go = f"import sqlite3; one = sqlite3.connect({str(one.path)!r}); one.execute('SELECT * FROM lanes')"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", f"{come_and_go}; one.close()"], check=True)
    for store in (one, two):
        await store.lease("group", QUESTION)
    elsewhere = SqliteStore(one.path, Hands())
    assert await elsewhere.peek() == await one.peek()
    await asyncio.gather(one.aclose(), two.aclose(), elsewhere.aclose())


async def test_a_store_that_is_closed_while_it_is_opened_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, begun, ready = SqliteStore(tmp_path / "file", Hands()), threading.Event(), SqliteStore._make_ready

    def closed_meanwhile(self: SqliteStore, opened: sqlite3.Connection) -> None:
        begun.set()
        assert self._closing.wait(10)
        ready(self, opened)

    monkeypatch.setattr(SqliteStore, "_make_ready", closed_meanwhile)
    opening = asyncio.create_task(store.check())
    await asyncio.to_thread(begun.wait, 10)
    await asyncio.gather(store.aclose(), store.aclose(), opening)
    assert [name for name in open_files() if name.startswith(str(store.path))] == []
    with pytest.raises(StoreAway) as said:
        await store.lease("group", QUESTION)
    assert str(said.value) == f"{store.path}: it is closed here"


async def test_a_file_that_cannot_be_made_ready_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something else" * 100)
    store = SqliteStore(tmp_path / "file", Hands())
    with pytest.raises(StoreUnusable) as said:
        await store.check()
    assert str(said.value) == (
        f"shared limits at {store.path}: holds something else than shared limits; move it away, or name another file"
    )
    assert [name for name in open_files() if name.startswith(str(store.path))] == []
    await store.aclose()


def open_files() -> list[str]:
    """The names of what this process has open."""
    return [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink() and each.exists()]


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "link", Hands())
    store.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnusable) as said:
        await store.check()
    assert str(said.value) == (
        f"shared limits at {store.path}: cannot be opened for writing (it is no regular file); set XDG_STATE_HOME to a "
        f"directory of yours"
    )


async def test_a_disk_that_knows_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    store = SqliteStore(tmp_path / "file", Hands())
    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StoreUnusable) as said:
        await store.check()
    assert str(said.value) == (
        f"shared limits at {store.path}: cannot be locked (No locks available); set XDG_STATE_HOME to a directory on a "
        f"local disk"
    )
    await store.aclose()
