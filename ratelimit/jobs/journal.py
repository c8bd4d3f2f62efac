"""What makes a job resumable: its results, its failures, and a journal of what was sent.

    results.jsonl           one line per answered request, as the Batch API writes them; what is in it is done
    results.errors.jsonl    one line per request that cannot succeed, in the same form
    results.journal.jsonl   one line per request before it is sent: its id, and a digest of what it says; one where it
                            was turned away for certain; now and then how much of the limits was spent, and which
                            input was found in order

After a crash, an id that was sent and is in neither of the others may have been billed; it is reported and sent again.
A run holds locks on the journal and the results, so that either may be lost, which the system releases however it ends.

Ids are kept as 64-bit digests in flat tables, some sixteen bytes each, so that a job of millions needs little memory.
"""

from __future__ import annotations

import fcntl
import secrets
import stat
from array import array
from pathlib import Path
from typing import Self

import msgspec

from ratelimit.errors import AlreadyRunning, OutputFailed, OutputUnusable
from ratelimit.jobs.lines import Lines, beside
from ratelimit.jobs.source import Row, digest


class _Result(msgspec.Struct, frozen=True):
    """What tells a result from a request: whatever is in those, both are there."""

    custom_id: str
    response: msgspec.Raw
    error: msgspec.Raw


class Checked(msgspec.Struct, frozen=True):
    """An input that was found in order, and what is in it."""

    setup: int  # what it was looked at with: other limits or another template find other things
    size: int
    modified: int
    rows: int
    lanes: dict[str, tuple[int, float]]  # requests and tokens


class _Entry(msgspec.Struct, frozen=True):
    sent: str | None = None
    content: int = 0
    turned_away: str | None = None
    checked: Checked | None = None
    spent: dict[str, dict[str, float]] | None = None
    at: float = 0


_DIGESTS = 2**64
_LEAST = len('{"sent":""}')  # bytes of a line that says anything

_result = msgspec.json.Decoder(_Result)
_entry = msgspec.json.Decoder(_Entry)


_SECRET = secrets.randbits(64) | 1 << 63


class Digests:
    """A set of 64-bit numbers that are spread evenly, in one flat table.

    Numbers come from files, too, and whoever wrote those may have chosen them. So where a slot is taken, each number
    goes on by a step of its own that nobody can foresee; it is odd, so that it comes to every slot.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._mask = 1023
        self._count = 0

    def add(self, number: int) -> bool:
        """Take in a number; returns whether it is new."""
        number = number or 1  # zero is an empty slot
        slot = self._slot(number)
        if self._slots[slot]:
            return False
        self._slots[slot] = number
        self._count += 1
        if self._count * 5 > self._mask * 3:
            self._grow()
        return True

    def _slot(self, number: int) -> int:
        """Return where a number is, or the empty slot where it would be."""
        slots, mask = self._slots, self._mask
        slot = number & mask
        there = slots[slot]
        if there and there != number:
            step = number * _SECRET >> 64 | 1
            while there and there != number:
                slot = (slot + step) & mask
                there = slots[slot]
        return slot

    def _grow(self) -> None:
        before, self._mask = self._slots, self._mask * 2 + 1
        self._slots = array("Q", [0]) * (self._mask + 1)
        for number in before:
            if number:
                self._slots[self._slot(number)] = number

    def __contains__(self, number: int) -> bool:
        return self._slots[self._slot(number or 1)] != 0

    def __len__(self) -> int:
        return self._count


class Journal:
    """The files of one job."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.errors: Path = beside(output, "errors")
        self.path: Path = beside(output, "journal")
        self.done: Digests = Digests()
        self.failed: int = 0
        self.in_doubt: list[str] = []
        self.checked: Checked | None = None
        self.spent: tuple[dict[str, dict[str, float]], float] = ({}, 0)
        self.sent_since_spent: int = 0
        _check_place(output)
        self._sent, self._contents = Digests(), Digests()
        self._open: list[Lines] = []
        try:
            self._journal = self._lines(self.path)
            self._lock(self._journal)
            self._results = self._lines(output)
            self._lock(self._results)
            self._failures = self._lines(self.errors)
        except BaseException:
            self.close()
            raise

    def _lines(self, path: Path) -> Lines:
        lines = Lines(path)
        self._open.append(lines)
        return lines

    def _lock(self, lines: Lines) -> None:
        try:
            fcntl.flock(lines.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(str(self.output)) from None
        except OSError as error:
            why = f"it cannot be locked ({error.strerror})"
            raise OutputUnusable(str(lines.path), why, "use a local disk") from None

    def recover(self, *, retry_failed: bool = False) -> None:
        """Read what earlier runs have left; raises for damage that no crash explains."""
        for number, line in self._results.recover():
            self.done.add(digest(_id_of(line, self.output, number)))
        failed = Digests() if retry_failed else self.done
        for number, line in self._failures.recover():
            failed.add(digest(_id_of(line, self.errors, number)))
            self.failed += 1
        self._read_journal(failed)

    def forget_failures(self) -> None:
        """Have what has failed before sent once more."""
        self._failures.clear()
        self.failed = 0

    def _read_journal(self, failed: Digests) -> None:
        doubtful: dict[str, int] = {}
        for line in self._journal.recover_longer(_LEAST):
            try:
                entry = _entry.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # a damaged line only means that less is known
            if not 0 <= entry.content < _DIGESTS:
                continue
            if entry.sent is not None:
                self._contents.add(entry.content)
                self.sent_since_spent += 1
                if entry.sent in doubtful:
                    doubtful[entry.sent] += 1
                else:
                    key = digest(entry.sent.encode())
                    self._sent.add(key)
                    if key not in self.done and key not in failed:
                        doubtful[entry.sent] = 1
            if entry.turned_away in doubtful:
                doubtful[entry.turned_away] -= 1
            if entry.spent is not None:
                self.spent, self.sent_since_spent = (entry.spent, entry.at), 0
            self.checked = entry.checked or self.checked
        self.in_doubt = [identifier for identifier, sent in doubtful.items() if sent > 0]

    def is_done(self, row: Row) -> bool:
        """Whether this id has been answered, or has failed for good."""
        return row.key in self.done

    def has_changed(self, row: Row) -> bool:
        """Whether this id was sent, but with another request."""
        return row.key in self._sent and row.content not in self._contents

    def sending(self, row: Row) -> None:
        """Note a request just before it goes out."""
        self._journal.append(msgspec.json.encode({"sent": row.id, "content": row.content}))

    def turned_away(self, row: Row) -> None:
        """Note that the service has taken no notice of what was noted as sent last, so that it was not billed."""
        self._journal.append(msgspec.json.encode({"turned_away": row.id}))

    def looked_through(self) -> None:
        """Forget what only serves to see what has changed."""
        self._sent, self._contents = Digests(), Digests()

    def note_checked(self, checked: Checked) -> None:
        """Note that the input is in order, so that a later run need not look again."""
        self.checked = checked
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

    @property
    def unsynced(self) -> bool:
        """Whether anything was written that a power cut may take back."""
        return any(lines.unsynced for lines in self._open)

    def sync(self) -> None:
        """Make everything written so far outlast a power cut."""
        for lines in (self._results, self._failures, self._journal):
            lines.sync()

    def close(self) -> None:
        """Sync and close; releases the lock. What fails is raised, unless the run has been told of such before."""
        told, failed = any(lines.broken for lines in self._open), list[OutputFailed]()
        for lines in reversed(self._open):  # the lock last
            try:
                lines.close()
            except OutputFailed as error:
                failed.append(error)
        if failed and not told:
            raise failed[0]

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
    if output.suffix in {".gz", ".zst", ".zstd"}:
        raise OutputUnusable(str(output), "results are not compressed", f"name it {output.stem}, and compress it later")
    try:
        kind = output.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        kind = stat.S_IFREG  # it is to be one
    except OSError as error:
        raise OutputUnusable(str(output), error.strerror or str(error), "choose another output") from None
    if stat.S_ISDIR(kind):
        raise OutputUnusable(str(output), "it is a directory", "name a file, such as results.jsonl")
    if not stat.S_ISREG(kind):
        raise OutputUnusable(str(output), "it is not a regular file", 'use "-o -" to write to a pipe')
    if not output.parent.is_dir():
        raise OutputUnusable(str(output), f"there is no directory {output.parent}", "create it first")
