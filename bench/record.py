"""What a run of a bench leaves behind: one JSON file that says what was measured, where, and what it is judged by.

Every figure in the documents is read from such files and from nowhere else. The verdict is not in the file: it is what
comes of holding the rows against the targets, each time that somebody asks.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_OURS = "ratelimit-scheduler"
_MANY = 40  # rows above this are not printed, but for those that miss a target

Row = dict[str, Any]
Targets = Mapping[str, str]
"""By the name of a figure in a row, what it has to be: `{"ratio": ">= 0.85"}`."""

_BOUNDS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    ">=": ("at least", operator.ge),
    "<=": ("at most", operator.le),
}


@dataclass(frozen=True, slots=True)
class Record:
    """One run: what it found, as rows, and the targets they are judged by."""

    bench: str
    rows: list[Row]
    targets: Targets
    command: str
    seed: int | None = None
    notes: list[str] = field(default_factory=list)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def missed(self) -> list[str]:
        """Every target that some row misses, or that no row has a figure for, in words."""
        return [text for text, met in self.verdicts if not met]

    @property
    def passed(self) -> bool:
        """Whether something was measured, and no target is missed."""
        return bool(self.rows) and not self.missed

    @property
    def verdicts(self) -> list[tuple[str, bool]]:
        """Each target in words, with the figure that comes closest to missing it, and whether it is met."""
        return [verdict(self.rows, figure, target) for figure, target in self.targets.items()]

    def fails(self, row: Row) -> bool:
        """Whether a row misses any of the targets."""
        return not all(meets(row, figure, target) for figure, target in self.targets.items())

    def write(self, file: Path) -> None:
        """Keep the run."""
        file.parent.mkdir(parents=True, exist_ok=True)
        head = asdict(self)
        rows = head.pop("rows")
        text = json.dumps(head, indent=2)[:-2]
        lines = ",\n".join("    " + json.dumps(row) for row in rows)  # a row a line: a change is read in the diff
        file.write_text(f'{text},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Record:
        """Return what a run has left."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def meets(row: Row, figure: str, target: str) -> bool:
    """Return whether a row meets a target; one that has no such figure is not judged by it."""
    sign, _, bound = target.partition(" ")
    value = row.get(figure)
    return value is None or _BOUNDS[sign][1](value, float(bound))


def verdict(rows: Iterable[Row], figure: str, target: str) -> tuple[str, bool]:
    """Return a target in words, with the worst figure there is for it, and whether every row meets it."""
    rows = list(rows)
    sign, _, bound = target.partition(" ")
    words, _ = _BOUNDS[sign]
    found = [value for row in rows if (value := row.get(figure)) is not None]
    worst = (min(found) if sign == ">=" else max(found)) if found else None
    said = f"{figure.replace('_', ' ')} {shown(worst) if found else 'not measured'} ({words} {bound})"
    return said, bool(found) and all(meets(row, figure, target) for row in rows)


def parser_of(bench: str, doc: str | None, quick: str) -> argparse.ArgumentParser:
    """Return a parser with what every bench can be told; `quick` says what is less then."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench {bench}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{quick}; kept apart, and in no document")
    parser.add_argument("--out", type=Path, help="where to keep the result")
    return parser


def concluded(record: Record, file: Path, columns: Iterable[str] | None = None) -> int:
    """Keep a run, print it, say what it misses, and return the exit code."""
    record.write(file)
    few = record.rows if len(record.rows) <= _MANY else [row for row in record.rows if record.fails(row)]
    names = columns or dict.fromkeys(name for row in record.rows for name in row)
    sys.stdout.write(table(few, names) + "\n")
    for note in record.notes:
        sys.stdout.write(f"{note}\n")
    for text, met in record.verdicts:
        sys.stdout.write(f"{'met' if met else 'MISSED'}  {text}\n")
    sys.stdout.flush()
    return 0 if record.passed else 1


def place(options: argparse.Namespace, name: str, *, partial: bool = False) -> Path:
    """Return where a result belongs: what is quick or only a part overwrites nothing that documents are made of."""
    apart = options.quick or partial
    return options.out or (RESULTS / "quick" if apart else RESULTS) / f"{name}.json"


def machine() -> dict[str, Any]:
    """Return what the run has at its disposal; the load average says how much of it others were using."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": [round(each, 2) for each in load],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, of what is measured and of whatever it is measured with."""
    found = {"python": platform.python_version()}
    for name in (_OURS, *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


class Progress:
    """Says on standard error how far a run is, for those who wait."""

    def __init__(self, many: int) -> None:
        self._many = many
        self._done = 0
        self._start = time.perf_counter()

    def say(self, what: str) -> None:
        """Count one more as done, and say what it was."""
        self._done += 1
        spent = time.perf_counter() - self._start
        left = spent / self._done * (self._many - self._done)
        sys.stderr.write(f"{self._done}/{self._many}  {spent:.0f} s, about {left:.0f} s to go  {what}\n")
        sys.stderr.flush()


def table(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> str:
    """Return rows as lines of even columns, for a terminal."""
    names = list(columns)
    cells = [names, *[[shown(row.get(name)) for name in names] for row in rows]]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def shown(value: Any) -> str:
    """Return a value as documents and terminals show it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        case _:
            return str(value)
