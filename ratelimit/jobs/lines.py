"""A file of lines that is only ever appended to, and is whole after any crash.

One record is one line is one `write`; what a crash cut short is cut off, and kept beside the file; any other damage is
refused. A write that a full disk cut short is taken back before the error is raised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ratelimit.errors import OutputFailed, OutputUnusable

_CHUNK = 1024 * 1024


class Lines:
    """An append-only file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unsynced = False
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise OutputUnusable(str(path), error.strerror or str(error), "choose another output") from None

    def append(self, record: bytes) -> None:
        """Write one record, which holds no line feed, as one line."""
        line = record + b"\n"
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise OutputFailed(str(self.path), error.strerror or str(error)) from None
        self._unsynced = True
        if written != len(line):
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OutputFailed(str(self.path), "no space left")

    def sync(self) -> None:
        """Make what was written outlast a power cut."""
        if self._unsynced:
            self._unsynced = False
            try:
                os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)
            except OSError as error:
                raise OutputFailed(str(self.path), error.strerror or str(error)) from None

    def recover(self) -> Iterator[tuple[int, bytes]]:
        """Yield every whole line with its number; then cut off what a crash left of the last, keeping a copy."""
        number, end, rest = 0, 0, b""
        while chunk := os.pread(self._file, _CHUNK, end + len(rest)):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                number += 1
                end += len(line) + 1
                yield number, line
        if rest:
            self.path.with_name(f"{self.path.name}.torn").write_bytes(rest)
            os.ftruncate(self._file, end)

    def clear(self) -> None:
        """Remove every line."""
        os.ftruncate(self._file, 0)

    def fileno(self) -> int:
        """Return the descriptor, for a lock."""
        return self._file

    def close(self) -> None:
        """Sync and close."""
        if self._file >= 0:
            try:
                self.sync()
            finally:
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
