"""Reads the requests of a job, one a line, as a stream.

A line is a Batch API request (`custom_id`, `method`, `url`, `body`) or a bare body. The body is never written anew: the
bytes of the line are the bytes of the POST. A bare body gets an id from its content and its position, so the same file
gives the same ids. A line that cannot be sent becomes a `Row` with a problem, never an exception: what to do about bad
lines is for the job to decide, and its other lines are good.

A file of which so many lines are no requests is none of requests: a table, or JSON on several lines. That is said at
once, by whoever reads it, instead of once a line.
"""

from __future__ import annotations

import io
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import msgspec

from ratelimit.errors import InputUnreadable, RateLimitError, RequestInvalid, printable
from ratelimit.jobs.reading import LONGEST_LINE, lines, opened
from ratelimit.limits.content import CHAT_PATH, endpoint_of
from ratelimit.wire.messages import Request, request

_LONGEST_ID = 512
_PACKED = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst"}
_FIRST = 10_000  # lines, of which one is a request in any file of requests
MANY = 50_000  # lines at fault, of which a file that somebody will mend has fewer
_HELD = 16 * 1024 * 1024  # bytes of them, until it is seen


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
    place: int = 0  # among the lines that are not blank, from 0 on
    _key: int | None = field(default=None, init=False, repr=False, compare=False)
    _content: int | None = field(default=None, init=False, repr=False, compare=False)

    def request(self) -> Request:
        """Return the request; raises `RequestInvalid` for what cannot be sent from a file."""
        made = request(self.body, self.path, identifier=self.id)
        if made.stream:
            raise RequestInvalid("the body asks for a stream", 'a file has no place for one; remove "stream": true')
        return made

    def fault(self) -> str | None:
        """Return why this is no request; None where it is one, whether or not it can be sent."""
        if self.problem is None:
            try:
                self.request()
            except RequestInvalid as error:
                return str(error)
        return self.problem

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
"""Whether the row in a place is worth looking into."""


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
        """Yield every line that is not blank, or of these the shard's, or of these those whose places are wanted.

        Raises `InputUnreadable` before the first where they begin with very many that are no requests.
        """
        rows = self._rows(wanted) if wanted else self._of_requests(self._rows(_every))
        return rows if self.shard is None else filter(self.shard.has, rows)

    def _of_requests(self, rows: Iterator[Row]) -> Iterator[Row]:
        held, size = list[Row](), 0
        for row in rows:
            held.append(row)
            size += len(row.body)
            if size > _HELD or not row.fault():
                break
            if len(held) == _FIRST:
                raise _no_requests(self.path, f"none of its first {_FIRST:,} lines is a request", held[0])
        yield from held
        yield from rows

    def _rows(self, wanted: Wanted) -> Iterator[Row]:
        with opened(self.path) as file:
            yield from self._of_lines(file, wanted, self.row)

    def _of_lines(self, file: io.BufferedReader, wanted: Wanted, row_of: Callable[[int, bytes], Row]) -> Iterator[Row]:
        for place, (number, line) in enumerate(lines(file)):
            if wanted(place):
                row = _too_long(number, line) if isinstance(line, int) else row_of(number, line)
                row.place = place
                yield row

    def row(self, number: int, line: bytes) -> Row:
        """Return what one line says."""
        identifier = f"line-{number}"
        try:
            outer = _decode(line)
            if outer.body is _ABSENT:
                if b'"messages"' not in line:
                    raise RequestInvalid(*_NO_MESSAGES)  # noqa: TRY301 - as for all else that is wrong with a line
                return Row(number, f"{identifier}-{digest(line):016x}", CHAT_PATH, self._with_model(line))
            identifier = checked_id(outer.custom_id)
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


def checked_id(identifier: str | None) -> str:
    """Return an id that a row may have."""
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


def _too_long(number: int, length: int) -> Row:
    return Row(number, f"line-{number}", problem=f"the line has {length:,} bytes, at most {LONGEST_LINE:,} are read")


class Strangers:
    """Counts the lines of an input that are no requests, and raises where most of very many are not."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._count = 0
        self._first: Row | None = None

    def note(self, row: Row, error: RateLimitError, rows: int) -> None:
        """Note that a row cannot be sent, which is one of so many."""
        if not isinstance(error, RequestInvalid):
            return
        self._count += 1
        self._first = self._first or row
        if self._count >= MANY and self._count * 2 > rows:
            raise _no_requests(self._path, f"{self._count:,} of its first {rows:,} lines are no requests", self._first)


def _no_requests(path: str, why: str, row: Row) -> InputUnreadable:
    """Return what is said of a file of other things, one of which is in this row."""
    problem = row.fault() or ""
    remedy = guessed(path, problem)
    return InputUnreadable(path, why, f"line {row.number}: {problem}" + (f"; {remedy}" if remedy else ""))


def guessed(path: str, problem: str) -> str:
    """Return what to do with a file that has no requests in it, as far as its first line lets one guess."""
    if ".csv" in Path(path).suffixes and problem.startswith("the line is not"):  # which no row of a table is
        return "rows of a table go with --template"
    if "got `array`" in problem:
        return "if it is a list of requests, jq -c '.[]' puts each on a line"
    if "truncated" in problem:
        return "if it is JSON on several lines, jq -c puts it on one"
    return ""
