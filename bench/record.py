"""What a run of a bench leaves behind: one JSON file that says what was measured, where, and whether it is enough.

Every figure in the documents is read from such files and from nowhere else. The scripts that can be run by themselves
print objects of their own; `normalized` gives those the same form, so that readers know one.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_OURS = "ratelimit-scheduler"
_TOLD = 30.0  # seconds after which a run must say how far it is

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One run: what it found, as rows, and the targets they were judged by."""

    bench: str
    rows: list[Row]
    targets: Mapping[str, Any]
    passed: bool
    command: str
    seed: int | None = None
    notes: list[str] = field(default_factory=list)
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

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
        """Return what a run has left, or what a script has left in a form of its own."""
        return cls(**normalized(file.stem, json.loads(file.read_text(encoding="utf-8"))))


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


def normalized(name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a record, made out of what a script of its own form has printed where need be."""
    if "rows" in raw:
        return dict(raw)
    head = {"machine", "python", "versions", "seed", "command", "targets", "target", "passed", "notes"}
    host = raw.get("machine", "")
    return {
        "bench": name,
        "rows": [{key: value for key, value in raw.items() if key not in head}],
        "targets": raw.get("targets", {"target": raw["target"]} if "target" in raw else {}),
        "passed": bool(raw.get("passed", True)),
        "command": str(raw.get("command", f"python bench/{name}.py")),
        "seed": raw.get("seed"),
        "notes": list(raw.get("notes", ())),
        "machine": host if isinstance(host, dict) else {"system": str(host)},
        "versions": {**({"python": raw["python"]} if "python" in raw else {}), **raw.get("versions", {})},
    }


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
