"""What a job has had enqueued: a file of lines beside the results, written before the service is asked for anything.

An intent, with the rows it is about, is on disk before a file is uploaded for it; the file's id before a batch is
created from it; the batch's id as soon as there is one. So what a crash interrupts is found again: an intent without a
file was never a batch; one with a file may be, and is looked for by its tag at the service.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from ratelimit.errors import OutputFailed, OutputUnusable, RateLimitError, printable
from ratelimit.jobs.figures import counted
from ratelimit.jobs.lines import Lines, beside


class _Intent(msgspec.Struct, frozen=True):
    lane: str
    endpoint: str
    tokens: int
    rows: int
    keys: str
    at: float


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    job: str | None = None
    tag: str | None = None
    intent: _Intent | None = None
    file: str | None = None
    batch: str | None = None
    ended: str | None = None
    answered: int = 0
    recalled: bool = False
    litter: tuple[str, ...] = ()
    clean: bool = False
    deadline: float | None = None
    at: float = 0.0


_LINE = re.compile(rb"^[^\n]{9,}(?=\n)", re.MULTILINE)  # whole, and long enough to say anything
_entry = msgspec.json.Decoder(_Entry)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True, eq=False)
class Enqueued:
    """One intent, and what has become of it."""

    tag: str
    lane: str
    endpoint: str
    tokens: int
    rows: int
    keys: array[int]  # of the rows, in the order of the file
    at: float
    file: str | None = None
    batch: str | None = None
    ended: str | None = None
    answered: int = 0
    recalled: bool = False
    litter: tuple[str, ...] = ()  # files at the service that are to be deleted


class BatchesUnderWay(RateLimitError):
    """A job's rows are enqueued in the Batch API; sending them live would pay for them twice."""

    exit_code = 2

    def __init__(self, path: str, count: int) -> None:
        super().__init__(
            f"{printable(path)} has {counted(count, 'batch')} under way, whose answers will be charged; run it with "
            f"--via batch to collect them, or end them first with: ratelimit cancel {printable(path)}"
        )
        self.path = path


def ledger_path(output: Path) -> Path:
    """Return where the ledger of a job is."""
    return beside(output, "batches")


class Ledger:
    """The ledger of one job; whoever opens it holds the job's lock."""

    def __init__(self, output: Path) -> None:
        self._lines = Lines(ledger_path(output))
        self.job: str = ""
        self.created: list[float] = []  # when batches were, by the wall clock
        self.all: dict[str, Enqueued] = {}
        self._deadline, self._since = 0.0, 0.0
        for number, line in self._lines.recover():
            self._read(number, line)
        if not self.job:
            self.job = secrets.token_hex(8)
            self._write(_Entry(job=self.job))

    @property
    def open(self) -> list[Enqueued]:
        """Those of which something may still come."""
        return [each for each in self.all.values() if each.ended is None]

    def _read(self, number: int, line: bytes) -> None:
        try:
            entry = _apply(line, self.all)
        except (
            msgspec.MsgspecError,
            ValueError,
            RecursionError,
        ):  # not passed over: rows would be enqueued twice
            raise OutputUnusable(
                str(self._lines.path),
                f"line {number} is damaged",
                "cancel the job's batches at the vendor's site and move the file away, or repair that line, "
                "then run again",
            ) from None
        self.job = entry.job or self.job
        if entry.deadline is not None:
            self._deadline, self._since = entry.deadline, entry.at
        if entry.batch:
            self.created.append(entry.at)

    def intend(self, lane: str, endpoint: str, tokens: int, keys: Iterable[int]) -> Enqueued:
        """Note that these rows are about to be enqueued."""
        numbers = array("Q", keys)
        packed = base64.b64encode(numbers.tobytes()).decode()
        tag, at = str(len(self.all) + 1), time.time()
        self._write(_Entry(tag=tag, intent=_Intent(lane, endpoint, tokens, len(numbers), packed, at)))
        self.all[tag] = made = Enqueued(tag, lane, endpoint, tokens, len(numbers), numbers, at)
        return made

    def uploaded(self, about: Enqueued, file: str) -> None:
        """Note the file that a batch is about to be created from."""
        about.file = file
        self._write(_Entry(tag=about.tag, file=file))

    def began(self, about: Enqueued, batch: str) -> None:
        """Note the batch."""
        about.batch = batch
        self.created.append(time.time())
        self._write(_Entry(tag=about.tag, batch=batch, at=self.created[-1]))

    def over(self, about: Enqueued, ended: str, answered: int = 0, *, litter: tuple[str, ...] = ()) -> None:
        """Note that nothing more will come of it, that what has come is on disk, and which files are to go."""
        about.ended, about.answered, about.litter = ended, answered, litter
        self._write(_Entry(tag=about.tag, ended=ended, answered=answered, litter=litter))

    def cleaned(self, about: Enqueued) -> None:
        """Note that its files are gone; to find that out again would do no harm, so that this is not synced."""
        about.litter = ()
        self._lines.append(_encode(_Entry(tag=about.tag, clean=True)))

    def recall(self, about: Enqueued) -> None:
        """Note that a batch is about to be cancelled, so that its rows go another way."""
        about.recalled = True
        self._write(_Entry(tag=about.tag, recalled=True))

    def left_until(self, deadline: float) -> float:
        """Return the seconds left of a deadline, which counts from the first run that had it; zero forgets it."""
        now = time.time()
        if deadline != self._deadline:
            self._deadline, self._since = deadline, now
            self._write(_Entry(deadline=deadline, at=now))
        return self._since + deadline - now

    def _write(self, entry: _Entry) -> None:
        self._lines.append(_encode(entry))
        self._lines.sync()

    def close(self) -> None:
        """Close the file; what matters of it was synced as it was written."""
        with suppress(OutputFailed):
            self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _apply(line: bytes, known: dict[str, Enqueued]) -> _Entry:
    """Take in one line; raises ValueError or MsgspecError for one that is damaged."""
    entry = _entry.decode(line)
    if not (entry.job or entry.tag) and entry.deadline is None:
        raise ValueError("it says nothing")
    if entry.tag and (intent := entry.intent):
        keys = array("Q", base64.b64decode(intent.keys))
        known[entry.tag] = Enqueued(
            entry.tag, intent.lane, intent.endpoint, intent.tokens, intent.rows, keys, intent.at
        )
    if about := known.get(entry.tag or ""):
        about.file = entry.file or about.file
        about.batch = entry.batch or about.batch
        about.ended = entry.ended or about.ended
        about.answered = entry.answered or about.answered
        about.recalled = entry.recalled or about.recalled
        about.litter = () if entry.clean else entry.litter or about.litter
    return entry


def read(output: Path) -> list[Enqueued]:
    """Return what a job has enqueued, without taking part in it."""
    known: dict[str, Enqueued] = {}
    try:
        whole = ledger_path(output).read_bytes()
    except OSError:
        return []
    for line in _LINE.findall(whole):
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            _apply(line, known)
    return list(known.values())
