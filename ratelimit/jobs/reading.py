"""Opens an input, unpacked, and takes it apart into lines.

Lines end with a line feed and nothing else; what Unicode counts as a line separator may stand inside a string. Blank
lines are counted and passed over, many at a time: a file may consist of them.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ratelimit.errors import InputUnreadable

LONGEST_LINE = 32 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_PIECE = 128 * 1024
_BLANK = re.compile(rb"[\r\n \t]*\n")
_IN_A_ROW = 64  # blank lines: whoever has so many may have millions


def lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes | int]]:
    """Yield every line that is not blank with its number: its bytes, or only how many where they are too many."""
    number = blank = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            length = len(line)
            while line and not line.endswith(b"\n"):
                line = file.readline(1024 * 1024)
                length += len(line)
            yield number, length
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        if line := line.strip(b"\r\n \t"):
            blank = 0
            yield number, line
        else:
            blank += 1
            if blank % _IN_A_ROW == 0:
                number += _pass_over_blank(file)


def _pass_over_blank(file: io.BufferedReader) -> int:
    """Read on to the next line that is not blank, in pieces of what is there; returns how many were."""
    passed = 0
    while found := _BLANK.match(file.peek()):
        passed += file.read(found.end()).count(b"\n")
    return passed


@contextmanager
def opened(path: str) -> Iterator[io.BufferedReader]:
    """Open an input for reading, unpacked; what goes wrong is said in words of ours."""
    try:
        with _binary(path) as file:
            yield file
    except IsADirectoryError:
        raise InputUnreadable(path, "it is a directory") from None
    except FileNotFoundError:
        raise InputUnreadable(path, "there is no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputUnreadable(path, getattr(error, "strerror", None) or str(error) or type(error).__name__) from None


@contextmanager
def _binary(path: str) -> Iterator[io.BufferedReader]:
    if path == "-":
        # Not sys.stdin.buffer: a thread may still be reading when the interpreter ends, which that one does not bear.
        with io.FileIO(sys.stdin.fileno(), closefd=False) as plain:
            yield io.BufferedReader(plain)
        return
    suffix = Path(path).suffix.lower()
    with Path(path).open("rb", buffering=_PIECE) as plain_file:
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=plain_file) as unpacked:
                yield io.BufferedReader(unpacked, _PIECE)
        elif suffix in {".zst", ".zstd"}:
            yield io.BufferedReader(_Unzstd(path, plain_file), _PIECE)
        else:
            assert isinstance(plain_file, io.BufferedReader)  # noqa: S101 - as `open` returns for a file in bytes
            yield plain_file


class _Unzstd(io.RawIOBase):
    """Reads zstd, frame after frame; the library's own reader takes a file cut short for one that ends."""

    def __init__(self, path: str, packed: IO[bytes]) -> None:
        try:
            import zstandard  # noqa: PLC0415 - an extra, needed by few
        except ImportError:
            raise InputUnreadable(path, "reading zstd needs: pip install 'ratelimit-scheduler[zstd]'") from None
        self._failed = zstandard.ZstdError
        self._decompressor: Any = zstandard.ZstdDecompressor()
        self._packed = packed
        self._open: Any = None
        self._rest = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            piece = self._rest or self._packed.read(_PIECE)
            if not piece:
                if self._open is not None:
                    raise EOFError("the file is cut short")
                return 0
            self._open = self._open or self._decompressor.decompressobj()
            try:
                self._ready = self._open.decompress(piece)
            except self._failed as error:
                raise OSError(str(error)) from None
            self._rest = self._open.unused_data if self._open.eof else b""
            if self._open.eof:
                self._open = None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
