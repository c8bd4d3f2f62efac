"""Looks through the whole input before anything is sent: bad lines, ids that stand twice, requests that cannot pass.

All of it is reported together, with line numbers. Ids are compared as 64-bit digests; where two are equal, a second
pass tells whether the ids are. What is left to do about each line is kept, a byte a line, so that whoever then sends
them passes over what is done, and over another lane's, without looking into it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from ratelimit.errors import RateLimitError, RequestsChanged, printable
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.source import Row, Source, Wanted

Check = Callable[[Row], tuple[str, float]]
"""Returns the lane a row's request belongs to, and its tokens; raises for one that can never pass."""

_SHOWN = 20
_LOOK = 255  # more lanes than there are marks for, a problem, or an id that goes by another name


@dataclass(slots=True)
class Findings:
    """What the pass has found."""

    looked: bool = True  # False: nobody has, and nothing is known
    rows: int = 0
    done: int = 0
    lanes: dict[str, tuple[int, float]] = field(default_factory=dict)  # requests and tokens that are left
    problems: dict[int, str] = field(default_factory=dict)  # by line
    twins: set[int] = field(default_factory=set)  # lines whose id is another's
    marks: bytearray = field(
        default_factory=bytearray, repr=False
    )  # by line: nothing left to do, which lane, or `_LOOK`

    def mark(self, number: int, mark: int) -> None:
        """Note what is left to do about a line: nothing (0), to send it on one lane (from 1 on), or to look again."""
        if number >= len(self.marks):
            self.marks.extend(bytes(max(number + 1 - len(self.marks), len(self.marks), 1024)))
        self.marks[number] = mark

    def lane_of(self, number: int) -> int | None:
        """Return the place among `lanes` of the row on a line, where that is known."""
        mark = self.marks[number] if number < len(self.marks) else _LOOK
        return mark - 1 if 0 < mark < _LOOK else None

    def wanted(self, feeder: int | None) -> Wanted | None:
        """Return which lines to look into: all of which something is left to do, or those of one feeder's lane.

        Whose lane is not known is for the first feeder. None says to look into every line, since nobody has yet.
        """
        marks, own, end = self.marks, None if feeder is None else feeder + 1, len(self.marks)
        if not marks:
            return None
        if own is None:
            return lambda number: number >= end or marks[number] != 0
        if own == 1:
            return lambda number: number >= end or marks[number] in (1, _LOOK)
        return lambda number: number < end and marks[number] == own

    def report(self) -> str:
        """Return the problems, a line each."""
        shown = [f"line {number}: {text}" for number, text in sorted(self.problems.items())[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            shown.append(f"and {len(self.problems) - _SHOWN:,} more")
        return "\n".join(shown)


class InputRefused(RateLimitError):
    """The input has lines that cannot be sent; nothing was."""

    exit_code = 2

    def __init__(self, path: str, findings: Findings) -> None:
        count = len(findings.problems)
        super().__init__(
            f"{count:,} of {findings.rows:,} lines of {printable(path)} cannot be sent, and nothing was; mend them, or "
            f"use --skip-bad to have them in the errors file and send the others\n{findings.report()}"
        )
        self.findings = findings


def preflight(source: Source, check: Check, journal: Journal | None, *, force: bool = False) -> Iterator[Findings]:
    """Look through the input, yielding what was found so far every few hundred lines, and at the end."""
    found, keys, changed, places = Findings(), array("Q"), 0, dict[str, int]()
    first_changed: Row | None = None
    for row in source.rows():
        found.rows += 1
        keys.append(row.key)
        if found.rows % 500 == 0:
            yield found
        if journal and journal.is_done(row):
            found.done += 1
            if journal.has_changed(row):
                changed += 1
                first_changed = first_changed or row
            continue
        try:
            if row.problem:
                found.problems[row.number] = row.problem
                found.mark(row.number, _LOOK)
            else:
                lane, tokens = check(row)
                before = found.lanes.get(lane, (0, 0.0))
                found.lanes[lane] = before[0] + 1, before[1] + tokens
                found.mark(row.number, min(places.setdefault(lane, len(places)) + 1, _LOOK))
        except RateLimitError as error:
            found.problems[row.number] = str(error)
            found.mark(row.number, _LOOK)
    if first_changed and not force:
        raise RequestsChanged(changed, first_changed.id, first_changed.number)
    _note_twins(source, keys, found)
    yield found


def _note_twins(source: Source, keys: array[int], found: Findings) -> None:
    ordered = sorted(keys)
    twins = {key for key, following in pairwise(ordered) if key == following}
    if not twins:
        return
    first: dict[str, int] = {}
    for row in source.rows():
        if row.key not in twins:
            continue
        if row.id in first:
            found.twins.add(row.number)
            found.mark(row.number, _LOOK)
            found.problems.setdefault(
                row.number,
                f"the custom_id {printable(row.id, 80)} stands on line {first[row.id]} already; each is its own",
            )
        else:
            first[row.id] = row.number
