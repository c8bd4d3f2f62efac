"""Reads the requests of a job, one a line, as a stream.

A line is a Batch API request (`custom_id`, `method`, `url`, `body`) or a bare body. The body is never written anew: the
bytes of the line are the bytes of the POST. A bare body gets an id from its content and its position, so the same file
gives the same ids. A line that cannot be sent becomes a `Row` with a problem, never an exception: what to do about bad
lines is for the job to decide, and its other lines are good.

Lines end with a line feed and nothing else; what Unicode counts as a line separator may stand inside a string.
"""

from __future__ import annotations

import gzip
import io
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import msgspec

from ratelimit.errors import InputUnreadable, RequestInvalid, printable
from ratelimit.limits.content import CHAT_PATH, endpoint_of
from ratelimit.wire.messages import Request, request

LONGEST_LINE = 32 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_LONGEST_ID = 512
_PACKED = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst"}


_ABSENT = msgspec.Raw()


class _Line(msgspec.Struct, frozen=True):
    """A line of the Batch API; all fields absent in a bare body."""

    custom_id: str | None = None
    method: str | None = None
    url: str | None = None
    body: msgspec.Raw = _ABSENT


class _Named(msgspec.Struct, frozen=True):
    """What a body says of its model."""

    model: msgspec.Raw = _ABSENT


_line = msgspec.json.Decoder(_Line)
_named = msgspec.json.Decoder(_Named)


@dataclass(slots=True)  # not frozen, which would double the price of a line that is done; nobody changes it
class Row:
    """One line: a request under an id, not yet looked into, or what is wrong with the line."""

    number: int
    id: str
    path: str = CHAT_PATH
    body: bytes = field(default=b"", repr=False)
    problem: str | None = None
    _key: int | None = field(default=None, init=False, repr=False, compare=False)
    _content: int | None = field(default=None, init=False, repr=False, compare=False)

    def request(self) -> Request:
        """Return the request; raises `RequestInvalid` for what cannot be sent from a file."""
        made = request(self.body, self.path, identifier=self.id)
        if made.stream:
            raise RequestInvalid("the body asks for a stream", 'a file has no place for one; remove "stream": true')
        return made

    @property
    def model(self) -> bytes:
        """The model as the body has it, found without looking into the rest; empty where there is none."""
        try:
            return bytes(_named.decode(self.body).model)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return b""

    @property
    def key(self) -> int:
        """A number that stands for the id."""
        if self._key is None:
            self._key = digest(self.id.encode())
        return self._key

    @property
    def content(self) -> int:
        """A number that changes when the request under this id does."""
        if self._content is None:
            self._content = digest(b"\0".join((self.id.encode(), self.path.encode(), self.body)))
        return self._content


def digest(data: bytes) -> int:
    """Return 64 bits that stand for some bytes."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of so many parts of an input: a row belongs to one of them by its id, in whatever order rows come."""

    index: int
    of: int

    def has(self, row: Row) -> bool:
        """Whether a row belongs here."""
        return row.key % self.of == self.index


Wanted = Callable[[int], bool]
"""Whether the row on a line is worth looking into."""


def _every(_: int) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job's requests come from; may be read any number of times, unless it is a pipe."""

    path: str
    model: str | None = None  # for lines that name none
    shard: Shard | None = None

    @property
    def rereadable(self) -> bool:
        """Whether it can be read more than once."""
        return self.path != "-" and Path(self.path).is_file()

    def state(self) -> tuple[int, int]:
        """Return size and time of the last change, to tell whether it is still the same."""
        state = Path(self.path).stat()
        return state.st_size, state.st_mtime_ns

    def check(self) -> None:
        """Raise `InputUnreadable` if it is nothing that can be read, without reading it."""
        if self.path == "-":
            if sys.stdin is None:
                raise InputUnreadable("-", "it is closed")
            return
        try:
            kind = Path(self.path).stat().st_mode
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = "there is no such file" if missing else error.strerror or str(error)
            raise InputUnreadable(self.path, why) from None
        if stat.S_ISDIR(kind):
            raise InputUnreadable(self.path, "it is a directory")
        if stat.S_ISREG(kind):
            with opened(self.path) as file:
                file.read(0)

    def rows(self, wanted: Wanted | None = None) -> Iterator[Row]:
        """Yield every line that is not blank, or of these the shard's, or of these those whose numbers are wanted."""
        rows = self._rows(wanted or _every)
        return rows if self.shard is None else filter(self.shard.has, rows)

    def _rows(self, wanted: Wanted) -> Iterator[Row]:
        with opened(self.path) as file:
            for number, line in lines(file):
                if wanted(number):
                    yield too_long(number, line) if isinstance(line, int) else self.row(number, line)

    def row(self, number: int, line: bytes) -> Row:
        """Return what one line says."""
        identifier = f"line-{number}"
        try:
            outer = _decode(line)
            if outer.body is _ABSENT:
                if b'"messages"' not in line:
                    raise RequestInvalid(*_NO_MESSAGES)  # noqa: TRY301 - as for all else that is wrong with a line
                return Row(number, f"{identifier}-{digest(line):016x}", CHAT_PATH, self._with_model(line))
            identifier = _checked_id(outer.custom_id)
            return Row(number, identifier, _checked_path(outer), self._with_model(bytes(outer.body)))
        except RequestInvalid as error:
            return Row(number, identifier, problem=str(error))

    def _with_model(self, body: bytes) -> bytes:
        if self.model is None or not body.startswith(b"{") or (b'"model"' in body and _names_a_model(body)):
            return body
        comma = b"" if body[1:].lstrip().startswith(b"}") else b","
        return b'{"model":' + msgspec.json.encode(self.model) + comma + body[1:]


def _decode(line: bytes) -> _Line:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if kind := next((kind for start, kind in _PACKED.items() if line.startswith(start)), None):
            raise RequestInvalid(f"the file is packed ({kind})", f"name it so that it ends in .{kind}") from None
        raise RequestInvalid(f"the line is not UTF-8 at byte {error.start}", "save the file as UTF-8") from None
    try:
        return _line.decode(line)
    except msgspec.ValidationError as error:
        raise RequestInvalid(f"the line is not a request: {printable(str(error))}", _SHAPE) from None
    except RecursionError:
        raise RequestInvalid("the line is nested too deeply", "no request needs more than a few levels") from None
    except msgspec.DecodeError as error:
        raise RequestInvalid(f"the line is not JSON: {printable(str(error))}", _SHAPE) from None


def _names_a_model(body: bytes) -> bool:
    try:
        return _named.decode(body).model is not _ABSENT
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # it is not JSON, and will be reported as it is


_NO_MESSAGES = (
    "the line has neither a body nor messages",
    'a bare body is one of chat; others go as {"custom_id": ..., "url": "/v1/embeddings", "body": {...}}',
)
_SHAPE = 'a line is {"custom_id": ..., "method": "POST", "url": ..., "body": {...}} or a bare body'


def _checked_id(identifier: str | None) -> str:
    if identifier is None or identifier == "":
        raise RequestInvalid("the line has a body but no custom_id", "give each line an id of its own")
    if len(identifier) > _LONGEST_ID:
        raise RequestInvalid(f"the custom_id has {len(identifier):,} characters", f"at most {_LONGEST_ID} are allowed")
    return identifier


def _checked_path(line: _Line) -> str:
    if (line.method or "POST").upper() != "POST":
        raise RequestInvalid(f'the method is "{printable(line.method or "", 100)}"', "requests are POSTed")
    path = line.url or CHAT_PATH
    if not path.startswith("/") or endpoint_of(path) == "other":
        raise RequestInvalid(f'the url is "{printable(path, 200)}"', f"it is a path such as {CHAT_PATH}")
    return path


def lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | int]]:
    """Yield every line that is not blank with its number: its bytes, or only how many where they are too many."""
    number = 0
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
            yield number, line


def too_long(number: int, length: int) -> Row:
    """Return what is said of a line that is too long to be read."""
    return Row(number, f"line-{number}", problem=f"the line has {length:,} bytes, at most {LONGEST_LINE:,} are read")


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
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
def _binary(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        # Not sys.stdin.buffer: a thread may still be reading when the interpreter ends, which that one does not bear.
        with io.FileIO(sys.stdin.fileno(), closefd=False) as plain:
            yield io.BufferedReader(plain)
        return
    suffix = Path(path).suffix.lower()
    with Path(path).open("rb") as plain_file:
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=plain_file) as unpacked:
                yield io.BufferedReader(unpacked)
        elif suffix in {".zst", ".zstd"}:
            yield io.BufferedReader(_Unzstd(path, plain_file), _PIECE)
        else:
            yield plain_file


_PIECE = 128 * 1024


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
