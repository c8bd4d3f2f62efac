"""What makes a job resumable: its results, its failures, and a journal of what was sent.

    results.jsonl           one line per answered request, as the Batch API writes them; what is in it is done
    results.errors.jsonl    one line per request that cannot succeed, in the same form
    results.journal.jsonl   one line per request before it is sent: its id, and a digest of what it says;
                            now and then how much of the limits was spent, and which input was found in order

After a crash, an id that was sent and is in neither of the others may have been billed; it is reported and sent again.
A run holds a lock on the journal, which the system releases however the run ends.

Ids are kept as 64-bit digests in sorted arrays, eight bytes each, so that the memory of a job of millions is small.
"""

from __future__ import annotations

import fcntl
from array import array
from bisect import bisect_left
from pathlib import Path
from typing import Self

import msgspec

from ratelimit.errors import AlreadyRunning, OutputUnusable
from ratelimit.jobs.lines import Lines
from ratelimit.jobs.source import Row, digest


class _Result(msgspec.Struct, frozen=True):
    custom_id: str


class Checked(msgspec.Struct, frozen=True):
    """An input that was found in order, and what is in it."""

    size: int
    modified: int
    rows: int
    models: tuple[str, ...]


class _Entry(msgspec.Struct, frozen=True):
    sent: str | None = None
    content: int = 0
    checked: Checked | None = None
    spent: dict[str, dict[str, float]] | None = None
    at: float = 0


_result = msgspec.json.Decoder(_Result)
_entry = msgspec.json.Decoder(_Entry)


class Digests:
    """A set of 64-bit numbers: sorted once, then looked up."""

    def __init__(self) -> None:
        self._known = array("Q")

    def load(self, numbers: array[int]) -> None:
        """Take the place of what was known."""
        self._known = array("Q", sorted(numbers))

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self._known, number)
        return place < len(self._known) and self._known[place] == number

    def __len__(self) -> int:
        return len(self._known)


class Journal:
    """The files of one job."""

    def __init__(self, output: Path) -> None:
        stem = output.name.removesuffix(".jsonl")
        self.output = output
        self.errors = output.with_name(f"{stem}.errors.jsonl")
        self.path = output.with_name(f"{stem}.journal.jsonl")
        self.done = Digests()
        self.failed = 0
        self.in_doubt: list[str] = []
        self.checked: Checked | None = None
        self.spent: tuple[dict[str, dict[str, float]], float] = ({}, 0)
        self.sent_since_spent = 0
        self._sent, self._contents = Digests(), Digests()
        _check_place(output)
        self._journal = Lines(self.path)
        try:
            fcntl.flock(self._journal.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._journal.close()
            raise AlreadyRunning(str(output)) from None
        except OSError as error:
            self._journal.close()
            raise OutputUnusable(
                str(self.path), f"it cannot be locked ({error.strerror})", "use a local disk"
            ) from None
        self._results = Lines(output)
        self._failures = Lines(self.errors)

    def recover(self, *, retry_failed: bool = False) -> None:
        """Read what earlier runs have left; raises for damage that no crash explains."""
        answered = array("Q")
        if retry_failed:
            self._failures.clear()
        for lines in (self._results, self._failures):
            before = len(answered)
            answered.extend(digest(_id_of(line, lines.path, number)) for number, line in lines.recover())
            self.failed = len(answered) - before
        self.done.load(answered)
        self._read_journal()

    def _read_journal(self) -> None:
        sent, contents = array("Q"), array("Q")
        doubtful: dict[str, None] = {}
        for _, line in self._journal.recover():
            try:
                entry = _entry.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # a damaged line only means that less is known
            if entry.sent is not None:
                key = digest(entry.sent.encode())
                sent.append(key)
                contents.append(entry.content)
                self.sent_since_spent += 1
                if key not in self.done:
                    doubtful[entry.sent] = None
            if entry.spent is not None:
                self.spent, self.sent_since_spent = (entry.spent, entry.at), 0
            self.checked = entry.checked or self.checked
        self._sent.load(sent)
        self._contents.load(contents)
        self.in_doubt = list(doubtful)

    def is_done(self, row: Row) -> bool:
        """Whether this id has been answered, or has failed for good."""
        return row.key in self.done

    def has_changed(self, row: Row) -> bool:
        """Whether this id was sent, but with another request."""
        return row.key in self._sent and row.content not in self._contents

    def sending(self, row: Row) -> None:
        """Note a request just before it goes out."""
        self._journal.append(msgspec.json.encode({"sent": row.id, "content": row.content}))

    def note_checked(self, checked: Checked) -> None:
        """Note that the input is in order, so that a later run need not look again."""
        self._journal.append(msgspec.json.encode({"checked": checked}))

    def note_spent(self, spent: dict[str, dict[str, float]], at: float) -> None:
        """Note how much of its limits each lane has spent at this time of day."""
        self._journal.append(msgspec.json.encode({"spent": spent, "at": at}))

    def answered(self, record: bytes) -> None:
        """Keep the answer to one request."""
        self._results.append(record)

    def gave_up(self, record: bytes) -> None:
        """Keep the failure of one request."""
        self._failures.append(record)

    def sync(self) -> None:
        """Make everything written so far outlast a power cut."""
        for lines in (self._results, self._failures, self._journal):
            lines.sync()

    def close(self) -> None:
        """Sync and close; releases the lock."""
        for lines in (self._results, self._failures, self._journal):
            lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _id_of(line: bytes, path: Path, number: int) -> bytes:
    try:
        return _result.decode(line).custom_id.encode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise OutputUnusable(
            str(path), f"line {number} is not a result", "move the file away, or repair that line, then run again"
        ) from None


def _check_place(output: Path) -> None:
    if output.is_dir():
        raise OutputUnusable(str(output), "it is a directory", "name a file, such as results.jsonl")
    if output.exists() and not output.is_file():
        raise OutputUnusable(str(output), "it is not a regular file", 'use "-o -" to write to a pipe')
    if not output.parent.is_dir():
        raise OutputUnusable(str(output), f"there is no directory {output.parent}", "create it first")
