"""The rows of a job that are left, as lines of batch files, on disk; and a few numbers of each in memory.

The input may be packed, or made of a template, and is read once. From then on any rows can be put together into a file
without going through the input again. The spool has no name, so whatever ends the run, nothing of it stays; what goes
wrong with it is said of the directory that it lies in.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Self

import msgspec

from ratelimit.errors import OutputFailed
from ratelimit.jobs.lines import failing_as_ours
from ratelimit.jobs.source import Row
from ratelimit.limits.charge import billed_input, charge, measure
from ratelimit.limits.tiers import Table


class _Line(msgspec.Struct, frozen=True):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


class Group:
    """The rows of one model and endpoint, which may share a batch; a row goes by its place here."""

    def __init__(self, lane: str, model: str, endpoint: str, *, live: bool) -> None:
        self.lane = lane
        self.model = model
        self.endpoint = endpoint
        self.live = live  # the live API could take them too
        self.charge: float = 0.0  # tokens that it would charge for all of them
        self.tokens: array[int] = array("Q")
        self.lengths: array[int] = array("Q")
        self.inputs: array[int] = array("Q")
        self.keys: array[int] = array("Q")
        self.offsets: array[int] = array("Q")


class Spool:
    """The rows that are left."""

    def __init__(self, directory: Path, table: Table, most_live: Callable[[str], float] | None = None) -> None:
        self._directory = directory
        self.table = table
        self._most_live = most_live  # the most tokens that the live API can ever charge a lane at once
        with failing_as_ours(directory):
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by this object's close
        self._end = 0
        self._places: dict[tuple[str, str, str, bool], int] = {}
        self.groups: list[Group] = []

    def add(self, row: Row) -> tuple[int, int]:
        """Take in a row; returns its group and its place in there. Raises for one that cannot be sent."""
        request = row.request()
        size = measure(request.fields, request.path)
        model = self.table.find(request.model)
        # What the queue counts is not documented: the exact count, or four bytes a token as the limits of the live API
        # do. The larger of the two is at most what it can be.
        tokens = max(billed_input(size, model), -(-size.utf8_bytes // 4) + 3 * size.messages + 3 * (size.messages > 0))
        lane = self.table.for_input(model.name, tokens).name
        charged = charge(size, "chat_2025", model) if self._most_live else 0
        live = self._most_live is not None and charged <= self._most_live(lane)
        name = lane, request.model, row.path, live
        if name not in self._places:
            self._places[name] = len(self.groups)
            self.groups.append(Group(lane, request.model, row.path, live=live))
        number = self._places[name]
        line = _encode(_Line(row.id, "POST", row.path, msgspec.Raw(_on_one_line(row.body)))) + b"\n"
        try:  # which costs less than the context does, for each row
            self._file.write(line)
        except OSError as error:
            raise OutputFailed(str(self._directory), error.strerror or str(error)) from None
        group = self.groups[number]
        group.charge += charged
        group.tokens.append(tokens)
        group.lengths.append(len(line))
        group.inputs.append(size.inputs if size.endpoint == "embeddings" else 0)
        group.keys.append(row.key)
        group.offsets.append(self._end)
        self._end += len(line)
        return number, len(group.keys) - 1

    def line(self, number: int, place: int) -> bytes:
        """Return the line of one row."""
        group = self.groups[number]
        with failing_as_ours(self._directory):
            self._file.seek(group.offsets[place])
            return self._file.read(group.lengths[place])

    def row(self, number: int, place: int) -> Row:
        """Return one row as it came in, but for the number of its line."""
        line = _decode(self.line(number, place))
        return Row(0, line.custom_id, line.url, bytes(line.body))

    def file(self, number: int, places: Sequence[int]) -> IO[bytes]:
        """Return a file of these rows, read from its beginning."""
        with failing_as_ours(self._directory), ExitStack() as unless_sent:
            made = unless_sent.enter_context(tempfile.TemporaryFile(dir=self._directory))
            for place in places:
                made.write(self.line(number, place))
            made.seek(0)
            unless_sent.pop_all()  # closed by whoever sends it
            return made

    def close(self) -> None:
        """Remove everything."""
        with suppress(OSError):  # what is still to be written of it, nobody will read
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _on_one_line(body: bytes) -> bytes:
    return msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body
