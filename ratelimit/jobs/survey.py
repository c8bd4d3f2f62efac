"""Measures every request of a file without sending any: its charge, its tokens, and how long its answer may be."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from ratelimit.errors import RateLimitError, RequestInvalid
from ratelimit.jobs.journal import Digests
from ratelimit.jobs.source import Row, Source, Strangers
from ratelimit.limits.charge import Formula, billed_input, charge, measure
from ratelimit.limits.tiers import Model, Table

_KEPT = 1_000  # problems
_USUAL_ANSWER = 400  # tokens, where neither the request nor the user says; only the middle of a range rests on it


@dataclass(slots=True)
class Load:
    """The requests of one lane: a number each, in the order of the file."""

    model: Model
    charges: array[float] = field(default_factory=lambda: array("d"))
    inputs: array[float] = field(default_factory=lambda: array("d"))
    caps: array[float] = field(default_factory=lambda: array("d"))  # the longest answer each may get
    expected: array[float] = field(default_factory=lambda: array("d"))

    @property
    def rows(self) -> int:
        """How many requests there are."""
        return len(self.charges)


@dataclass(slots=True)
class Survey:
    """What a file asks for."""

    rows: int = 0
    measured: int = 0
    loads: dict[str, Load] = field(default_factory=dict)
    bad: int = 0  # lines that cannot be sent
    problems: dict[int, str] = field(default_factory=dict)  # the first of them, by line
    duplicates: int = 0

    def blame(self, row: Row, error: RateLimitError) -> None:
        """Note that a row cannot be sent."""
        self.bad += 1
        if self.bad <= _KEPT:
            self.problems[row.number] = row.problem or str(error)

    @property
    def scale(self) -> float:
        """How many rows each measured one stands for."""
        return self.rows / self.measured if self.measured else 1.0

    def error(self) -> float:
        """Return the half-width of the 95 % interval of the token total, as a part of it; zero if all were measured."""
        if self.measured >= self.rows:
            return 0.0
        values = [value for load in self.loads.values() for value in load.inputs]
        if len(values) < 2 or not sum(values):
            return 1.0
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
        return 1.96 * math.sqrt(variance / len(values)) / mean


def survey(
    source: Source,
    table: Table,
    *,
    every: int = 1,
    expected_output: int | None = None,
    formula: Formula = "chat_2025",
) -> Iterator[Survey]:
    """Measure one row in `every`; yields the survey so far every few thousand rows, and at the end."""
    found, seen, strangers = Survey(), Digests(), Strangers(source.path)
    for row in source.rows():
        found.rows += 1
        found.duplicates += not seen.add(row.key)
        if (found.rows - 1) % every == 0:
            found.measured += 1
            try:
                _measure(row, table, found, expected_output, formula)
            except RateLimitError as error:
                found.blame(row, error)
                strangers.note(row, error, found.measured)
        if found.rows % 2000 == 0:
            yield found
    yield found


def _measure(row: Row, table: Table, found: Survey, expected_output: int | None, formula: Formula) -> None:
    if row.problem:
        raise RequestInvalid(row.problem, "mend this line of the input")
    request = row.request()
    size = measure(request.fields, request.path)
    model = table.find(size.model)
    load = found.loads.setdefault(model.name, Load(model))
    tokens = billed_input(size, model)
    answers = 0 if size.endpoint in {"embeddings", "moderations"} else size.choices
    cap = answers * (size.cap or model.max_output or _USUAL_ANSWER)
    usual = answers * (_USUAL_ANSWER if expected_output is None else expected_output)
    load.charges.append(charge(size, formula, model))
    load.inputs.append(tokens)
    load.caps.append(cap)
    load.expected.append(min(usual, cap))
