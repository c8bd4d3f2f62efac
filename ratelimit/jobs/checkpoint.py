"""What many workers have answered between them: a directory in which each appends to a file of its own.

    checkpoint/worker-….jsonl        one line per answer or failure, as the Batch API writes them

Nobody else writes a worker's file, so nothing has to be locked, on whatever storage the directory lies; everybody reads
all of them, so a row that any worker has answered is asked by none again, whoever has been killed since. A worker that
is started anew begins a new file. A last line that a crash cut short is not read, and its row is asked again.

A row is known by a digest of its id and its request, which its line bears. Where each answer stands is kept in two flat
tables, some thirty bytes a row.
"""

from __future__ import annotations

import asyncio
import os
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

from ratelimit.errors import OutputUnusable
from ratelimit.jobs import records
from ratelimit.jobs.lines import Lines
from ratelimit.jobs.records import Outcome
from ratelimit.jobs.source import Row

_LEAST = len('{"id":"0","response":{},"error":{}}')  # bytes of a line that says anything
_OFFSET = 48  # bits; the rest of a place is the number of the file


class Places:
    """Where things are: 64-bit numbers by 64-bit numbers that are spread evenly."""

    def __init__(self) -> None:
        self._keys, self._places = array("Q", bytes(8 * 1024)), array("Q", bytes(8 * 1024))
        self._count = 0

    def __setitem__(self, key: int, place: int) -> None:
        key = key or 1  # zero is an empty slot
        slot = self._slot(key)
        if not self._keys[slot]:
            self._keys[slot] = key
            self._count += 1
        self._places[slot] = place
        if self._count * 5 > len(self._keys) * 3:
            self._grow()

    def get(self, key: int) -> int | None:
        """Return the place of a key, or None."""
        slot = self._slot(key or 1)
        return self._places[slot] if self._keys[slot] else None

    def __len__(self) -> int:
        return self._count

    def _slot(self, key: int) -> int:
        keys, mask = self._keys, len(self._keys) - 1
        slot = key & mask
        while keys[slot] and keys[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        keys, places = self._keys, self._places
        empty = bytes(16 * len(keys))
        self._keys, self._places = array("Q", empty), array("Q", empty)
        for key, place in zip(keys, places, strict=True):
            if key:
                slot = self._slot(key)
                self._keys[slot], self._places[slot] = key, place


class Checkpoint:
    """The directory, as one worker has it open. With `retry_failed`, what has failed before is not known."""

    def __init__(self, directory: Path, *, retry_failed: bool = False) -> None:
        self._directory = prepare(directory)
        self._retry_failed = retry_failed
        self._own = Lines(directory / f"worker-{os.getpid()}-{uuid4().hex}.jsonl")
        self._files: list[Path] = []
        self._read: dict[Path, int] = {}  # how far
        self._places = Places()
        self.refresh()

    def refresh(self) -> None:
        """Learn what all workers have written since the last time."""
        for path in sorted(self._directory.glob("worker-*.jsonl")):
            if path not in self._read:
                self._files.append(path)
                self._read[path] = 0
        for number, path in enumerate(self._files):
            if path.stat().st_size > self._read[path]:
                self._learn(number, path)

    def _learn(self, number: int, path: Path) -> None:
        offset = self._read[path]
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if len(line) > _LEAST:
                    with suppress(ValueError):  # a damaged line only means that less is known
                        found = records.outcome(line)
                        if found.error is None or not self._retry_failed or path == self._own.path:
                            self._places[found.content] = number << _OFFSET | offset
                offset += len(line)
        self._read[path] = offset

    def find(self, row: Row) -> Outcome | None:
        """Return what became of a row, as far as `refresh` has seen."""
        place = self._places.get(row.content)
        if place is None:
            return None
        with self._files[place >> _OFFSET].open("rb") as file:
            file.seek(place & ((1 << _OFFSET) - 1))
            return records.outcome(file.readline())

    def keep(self, record: bytes) -> None:
        """Keep what became of a row; raises `OutputFailed` where that cannot be."""
        self._own.append(record)

    async def sync(self) -> None:
        """Make what was kept outlast a power cut."""
        await asyncio.to_thread(self._own.sync)

    def close(self) -> None:
        """Sync and close."""
        self._own.close()

    def __len__(self) -> int:
        return len(self._places)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prepare(directory: Path) -> Path:
    """Return the directory, made where it was missing; raises `OutputUnusable` for what is none."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = "it is not a directory" if isinstance(error, FileExistsError) else error.strerror or str(error)
        raise OutputUnusable(str(directory), why, "name a directory that every worker can write to") from None
    return directory
