"""A file of lines that is only ever appended to, and is whole after any crash.

One record is one line is one `write`; what a crash cut short is cut off, and kept beside the file; any other damage is
refused. A write that a full disk cut short is taken back before the error is raised; if even that fails, nothing more
is written, so that no line is ever glued to half another. A file that is deleted or replaced while it is written is
found out with the next sync: what else would be written to it, nobody could read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from ratelimit.errors import OutputFailed, OutputUnusable

_CHUNK = 1024 * 1024
_CONTROL = re.compile(rb"\x7f|\xc2[\x80-\x9f]")  # what a terminal may obey and JSON lets pass; others it escapes itself


def as_line(record: bytes) -> bytes:
    """Return a record of JSON as a line that says the same, and does nothing to a terminal that shows it."""
    if b"\xc2" in record or b"\x7f" in record:
        record = _CONTROL.sub(lambda found: b"\\u%04x" % found[0][-1], record)
    return record + b"\n"


def beside(output: Path, kind: str) -> Path:
    """Return where what belongs to an output stands: results.errors.jsonl beside results.jsonl."""
    if not output.name:  # the root, or the working directory
        raise OutputUnusable(str(output), "it is a directory", "name a file, such as results.jsonl")
    return output.with_name(f"{output.name.removesuffix('.jsonl')}.{kind}.jsonl")


class Lines:
    """An append-only file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = self._synced = 0  # records; what another thread is still syncing is not synced
        self._broken: str | None = None
        self._file, state = _opened(path)
        self._end = state.st_size
        self._name = state.st_dev, state.st_ino

    def append(self, record: bytes) -> None:
        """Write one record, which holds no line feed, as one line; raises `OutputFailed` and leaves no part of it."""
        if self._broken:
            raise OutputFailed(str(self.path), self._broken)
        line = as_line(record)
        try:
            written = os.write(self._file, line)
            why = "no space left"
        except OSError as error:
            written, why = 0, _words(error)
        if written == len(line):
            self._end += written
            self._written += 1
            return
        try:
            os.ftruncate(self._file, self._end)
        except OSError:
            self._broken = why
        raise OutputFailed(str(self.path), why)

    @property
    def broken(self) -> bool:
        """Whether something was lost, which was said, and no more is written."""
        return self._broken is not None

    @property
    def unsynced(self) -> bool:
        """Whether anything was written that a power cut may take back."""
        return self._synced < self._written

    def sync(self) -> None:
        """Make what was written outlast a power cut; on return it does, whoever else is syncing."""
        if self.unsynced:
            written = self._written
            if why := self._lost():
                self._broken = why
                self._synced = self._written  # as far as can be
                raise OutputFailed(str(self.path), why)
            self._synced = max(self._synced, written)

    def _lost(self) -> str | None:
        """Sync, and return why what was written will not be found; None if it will be."""
        try:
            os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)
            state = self.path.lstat()
        except FileNotFoundError:
            return "it was deleted or moved away while it was written"
        except OSError as error:  # what was not kept is not known, and asking again would not tell
            return _words(error)
        same = (state.st_dev, state.st_ino) == self._name
        return None if same else "another file was put in its place while it was written"

    def recover(self) -> Iterator[tuple[int, bytes]]:
        """Yield every whole line with its number; then cut off what a crash left of the last, keeping a copy."""
        number = 0
        for block in self._blocks():
            for line in block.split(b"\n"):
                number += 1
                yield number, line

    def recover_longer(self, least: int) -> Iterator[bytes]:
        """Do the same, but yield only lines of so many bytes or more: of shorter ones there may be very many."""
        long = re.compile(rb"^[^\n]{%d,}" % least, re.MULTILINE)
        for block in self._blocks():
            yield from long.findall(block)

    def _blocks(self) -> Iterator[bytes]:
        """Yield all that is whole, many lines at a time, each without the end of its last; then see to the rest."""
        end, rest = 0, b""
        try:
            while chunk := os.pread(self._file, _CHUNK, end + len(rest)):
                whole, ended, rest = (rest + chunk).rpartition(b"\n")
                if ended:
                    yield whole
                    end += len(whole) + 1
            if rest:
                descriptor, _ = _opened(self.path.with_name(f"{self.path.name}.torn"))
                with os.fdopen(descriptor, "ab") as torn:
                    torn.write(rest + b"\n")
                os.ftruncate(self._file, end)
        except OSError as error:
            raise OutputUnusable(str(self.path), _words(error), "see to the disk, then run again") from None
        self._end = end

    def clear(self) -> None:
        """Remove every line."""
        try:
            os.ftruncate(self._file, 0)
        except OSError as error:
            raise OutputFailed(str(self.path), _words(error)) from None
        self._end = 0

    def fileno(self) -> int:
        """Return the descriptor, for a lock."""
        return self._file

    def close(self) -> None:
        """Sync and close."""
        if self._file >= 0:
            try:
                self.sync()
            finally:
                with suppress(OSError):
                    os.close(self._file)
                self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path) -> tuple[int, os.stat_result]:
    """Open a regular file that nobody else may read, made if there is none, and its name made to last."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else _words(error)
        raise OutputUnusable(str(path), why, "choose another output") from None
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        os.close(descriptor)
        raise OutputUnusable(str(path), "it is not a regular file", "choose another output")
    if not state.st_size:
        with suppress(OSError):  # not every file system can; syncing the file itself is what counts there
            directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    return descriptor, state


@contextmanager
def failing_as_ours(path: Path) -> Iterator[None]:
    """Have what goes wrong with a file that no run needs twice in words of ours."""
    try:
        yield
    except OSError as error:
        raise OutputFailed(str(path), _words(error)) from None


def _words(error: OSError) -> str:
    return error.strerror or str(error)
