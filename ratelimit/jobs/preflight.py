"""Looks through the whole input before anything is sent: bad lines, ids that stand twice, requests that cannot pass.

All of it is reported together, with line numbers. Ids are compared as 64-bit digests; where two are equal, a second
pass tells whether the ids are. What is left to do about each row is kept, a byte a row, so that whoever then sends
them passes over what is done, and over another lane's, without looking into it. What is wrong is kept of the first few
bad rows only; of others it is found out again. What is appended to the input later nobody has looked at, and it is left
for the next run.

No more is read of a file that has so many bad lines that it will be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ratelimit.errors import RateLimitError, RequestInvalid, RequestsChanged, printable
from ratelimit.jobs.journal import Digests, Journal
from ratelimit.jobs.source import MANY, Row, Source, Strangers, Wanted, guessed

Check = Callable[[Row], tuple[str, float]]
"""Returns the lane a row's request belongs to, and its tokens; raises for one that can never pass."""

_SHOWN = 20
_BAD = 254  # it cannot be sent, or its id is another's
_LOOK = 255  # more lanes than there are marks for


@dataclass(slots=True)
class Findings:
    """What the pass has found."""

    looked: bool = True  # False: nobody has, and nothing is known
    whole: bool = True  # False: there are more rows, which nobody has looked at
    rows: int = 0
    done: int = 0
    lanes: dict[str, tuple[int, float]] = field(default_factory=dict)  # requests and tokens that are left
    bad: int = 0
    problems: dict[int, str] = field(default_factory=dict)  # the first of them, by line
    twins: dict[int, int] = field(default_factory=dict)  # lines whose id is another's, and that one's
    end: int = 0  # the place after the last row
    marks: bytearray = field(
        default_factory=bytearray, repr=False
    )  # by place: nothing left to do, which lane, `_BAD` or `_LOOK`

    def mark(self, place: int, mark: int) -> None:
        """Note what is left to do about a row: nothing (0), to send it on one lane (from 1 on), or to look again."""
        if place >= len(self.marks):
            self.marks.extend(bytes(max(place + 1 - len(self.marks), len(self.marks), 1024)))
        self.marks[place] = mark

    def blame(self, row: Row, why: str) -> None:
        """Note that a row cannot be sent."""
        self.bad += 1
        self.mark(row.place, _BAD)
        if len(self.problems) < _SHOWN or row.number < max(self.problems):
            self.problems[row.number] = why
            if len(self.problems) > _SHOWN:
                del self.problems[max(self.problems)]

    def is_bad(self, place: int) -> bool:
        """Whether the row in a place is known to be at fault."""
        return place < len(self.marks) and self.marks[place] == _BAD

    def problem(self, row: Row, check: Check) -> str | None:
        """Return what is wrong with a row, which may have been found out before."""
        if row.problem or not self.is_bad(row.place):
            return row.problem
        try:
            check(row)
        except RateLimitError as error:
            return str(error)
        return _stands_twice(row, self.twins[row.number]) if row.number in self.twins else None

    def named(self, row: Row) -> Row:
        """Return the row, under the name of its line where its id is another's."""
        return replace(row, id=f"line-{row.number}") if row.number in self.twins else row

    def lane_of(self, place: int) -> int | None:
        """Return which of `lanes` the row in a place belongs to, where that is known."""
        mark = self.marks[place] if place < len(self.marks) else _LOOK
        return mark - 1 if 0 < mark < _BAD else None

    def wanted(self, feeder: int | None) -> Wanted | None:
        """Return which rows to look into: all about which something is left to do, or those of one feeder's lane.

        Whose lane is not known is for the first feeder. None says to look into every row, since nothing is marked.
        """
        marks, own, end = self.marks, None if feeder is None else feeder + 1, self.end
        if not marks:
            return None
        if own is None:
            return lambda place: place < end and marks[place] != 0
        if own == 1:
            return lambda place: place < end and marks[place] in (1, _BAD, _LOOK)
        return lambda place: place < end and marks[place] == own

    def report(self) -> str:
        """Return the problems, a line each."""
        shown = [f"line {number}: {text}" for number, text in sorted(self.problems.items())]
        if self.bad > len(self.problems):
            shown.append(f"and {self.bad - len(self.problems):,} more" + ("" if self.whole else " at least"))
        return "\n".join(shown)


class InputRefused(RateLimitError):
    """The input has lines that cannot be sent; nothing was."""

    exit_code = 2

    def __init__(self, path: str, findings: Findings) -> None:
        of = "" if findings.whole else "the first "
        remedy = "mend them, or use --skip-bad to have them in the errors file and send the others"
        if findings.bad == findings.rows:  # there are no others
            first = findings.problems[min(findings.problems)]
            remedy = guessed(path, first) or "mend them, and run again"
        super().__init__(
            f"{findings.bad:,} of {of}{findings.rows:,} lines of {printable(path)} cannot be sent, and nothing was; "
            f"{remedy}\n{findings.report()}"
        )
        self.findings = findings


def preflight(
    source: Source, check: Check, journal: Journal | None, *, force: bool = False, skip_bad: bool = False
) -> Iterator[Findings]:
    """Look through the input, yielding what was found so far every few hundred rows, and at the end."""
    look = _Look(source.path, check, journal)
    found = look.found
    for row in source.rows():
        look.at(row)
        if found.rows % 500 == 0:
            yield found
        if found.bad >= MANY and not skip_bad:
            found.whole = False
            break
    if look.changed and not force:
        raise RequestsChanged(look.changed, look.first_changed.id, look.first_changed.number)
    if look.twins and found.whole:
        _note_twins(source, look.twins, found)
    yield found


class _Look:
    """One pass."""

    def __init__(self, path: str, check: Check, journal: Journal | None) -> None:
        self.found = Findings()
        self.twins = Digests()
        self.changed, self.first_changed = 0, Row(0, "")
        self._check = check
        self._journal = journal
        self._seen = Digests()
        self._strangers = Strangers(path)
        self._places: dict[str, int] = {}

    def at(self, row: Row) -> None:
        """Look at a row."""
        found, journal = self.found, self._journal
        found.rows += 1
        found.end = row.place + 1
        if not self._seen.add(row.key):
            self.twins.add(row.key)
        if journal and journal.is_done(row):
            found.done += 1
            if journal.has_changed(row):
                self.changed += 1
                self.first_changed = row if self.changed == 1 else self.first_changed
            return
        try:
            if row.problem:
                raise RequestInvalid(row.problem, "mend this line of the input")
            lane, tokens = self._check(row)
        except RateLimitError as error:
            found.blame(row, row.problem or str(error))
            self._strangers.note(row, error, found.rows)
            return
        before = found.lanes.get(lane, (0, 0.0))
        found.lanes[lane] = before[0] + 1, before[1] + tokens
        place = self._places.setdefault(lane, len(self._places))
        found.mark(row.place, place + 1 if place + 1 < _BAD else _LOOK)


def _note_twins(source: Source, twins: Digests, found: Findings) -> None:
    first: dict[str, int] = {}
    for row in source.rows():
        if row.key not in twins or row.place >= found.end:
            continue
        if row.id in first:
            found.twins[row.number] = first[row.id]
            if not found.is_bad(row.place):
                found.blame(row, _stands_twice(row, first[row.id]))
        else:
            first[row.id] = row.number


def _stands_twice(row: Row, first: int) -> str:
    return f"the custom_id {printable(row.id, 80)} stands on line {first} already; each is its own"
