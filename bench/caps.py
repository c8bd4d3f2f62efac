"""How much of every documented cap is used, cell by cell of the table of tiers, and how often anything is refused.

`--virtual` plays every model on every tier on a virtual clock: ten minutes each, of which the first belongs to the
opening burst, and two days for limits per day, of which the first does. `--real` plays a few over sockets,
in real time, against the mock server in a process of its own.

Cells with the same requests per minute and day differ only in how large a token is: the workloads are made in
proportion to the limits. Each such set of limits is played once, in its smallest tokens, where rounding is coarsest;
every cell of it has its row. `--every` plays each cell by itself.

    python -m bench caps --virtual [--quick] [--enforce KIND] [--charge PROFILE]
    python -m bench caps --real [--quick]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from bench import cells, real
from bench.record import Progress, Record, Targets, concluded, machine, parser_of, place, versions
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.tiers import TIERS, Model, load
from ratelimit.testing.mock.charges import Profile

LEAST = 0.995
QUICK = {"free", "tier-1", "tier-2"}
SMALL = 1000  # RPM: up to this, for quick runs and for services that count or charge otherwise
_CHAT_MODEL = "gpt-4.1"  # its window takes whatever a tier allows
_COLUMNS = ("model", "tier", "bound", "cap", "achieved", "utilisation", "refused", "wait_p50", "wait_p99")
_FIT = {"RPM": ("requests", MINUTE), "TPM": ("tokens", MINUTE), "RPD": ("requests", DAY)}


@dataclass(frozen=True, slots=True)
class Cell:
    """One model on one tier, and which of its limits binds."""

    model: Model
    tier: str
    bound: str

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What the tier allows."""
        return load().limits(self.model.name, self.tier)

    def amount(self, bound: str) -> float | None:
        """The amount of one of the limits."""
        return next((each.amount for each in self.limits if (each.unit, each.window) == _FIT[bound]), None)


def every_cell() -> Iterator[Cell]:
    """Every model on every tier that can use it, by each of its limits."""
    for model in load().models.values():
        for tier in TIERS:
            if model.tiers.get(tier) is not None:
                for bound in _FIT:
                    cell = Cell(model, tier, bound)
                    if cell.amount(bound):
                        yield cell


def alike(found: Iterable[Cell], *, apart: bool) -> list[list[Cell]]:
    """Cells that are one simulation, each group beginning with the one that is to be played."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in found:
        same = (cell.bound, cell.amount("RPM"), cell.amount("RPD"), cell.amount("TPM") is None)
        groups.setdefault((*same, cell.model.name, cell.tier) if apart else same, []).append(cell)
    return [sorted(group, key=lambda cell: cell.amount("TPM") or 0) for group in groups.values()]


def virtual(options: argparse.Namespace) -> Record:
    """Play every cell on a virtual clock."""
    small = options.quick or options.charge or options.enforce != "bucket"
    chosen = [
        cell
        for cell in every_cell()
        if (not options.tier or cell.tier in options.tier)
        and (not options.model or cell.model.name in options.model)
        and not (options.quick and cell.tier not in QUICK)
        and not (small and (cell.amount("RPM") or 0) > SMALL)
        and not (options.charge and "chat" not in " ".join(cell.model.endpoints))
    ]
    groups = alike(chosen, apart=options.every)
    minutes = 5 if options.quick else options.minutes
    setting = cells.Setting(options.enforce, options.charge, options.seed, horizon=minutes * MINUTE)
    progress, rows = Progress(len(groups)), list[dict[str, Any]]()
    for group in groups:
        first = group[0]
        mine = replace(setting, opening=DAY, horizon=2 * DAY) if first.bound == "RPD" else setting
        model = load().find(_CHAT_MODEL) if options.charge else None
        played = cells.play(first.limits, first.bound, mine, model)
        progress.say(f"{first.model.name} {first.tier} {first.bound}")
        if played is None:
            continue
        for cell in group:
            cap = cell.amount(cell.bound) or 0
            head = {"model": cell.model.name, "tier": cell.tier}
            scaled = {"cap": cap, "achieved": round(played["utilisation"] * cap, 1)}
            rows.append({**head, **played, **scaled, "played_as": f"{first.model.name} {first.tier}"})
    order = {name: place for place, name in enumerate(load().models)}
    rows.sort(key=lambda row: (order[row["model"]], TIERS.index(row["tier"])))
    return Record(
        bench="caps",
        rows=rows,
        targets=targets(options.enforce),
        command=command(options),
        seed=options.seed,
        notes=[f"enforcement: {options.enforce}", f"charge: {options.charge or 'known beforehand'}"],
        machine=machine(),
        versions=versions("aiolimiter"),
    )


def targets(enforce: str) -> Targets:
    """Return what a cell is judged by: that it uses its cap and is not refused.

    A service that does not refill continuously refuses the opening burst of anybody who trusts the documents, and says
    nothing of how much it will admit: there it counts that refusals end.
    """
    if enforce != "bucket":
        return {"refused_late": "<= 0"}
    return {"utilisation": f">= {LEAST:g}", "refused": "<= 0"}


def command(options: argparse.Namespace) -> str:
    """Return what repeats this run."""
    said = ["python -m bench caps", "--real" if options.real else "--virtual"]
    said += ["--quick"] if options.quick else []
    said += ["--every"] if options.every else []
    said += [f"--enforce {options.enforce}"] if options.enforce != "bucket" else []
    said += [f"--charge {options.charge}"] if options.charge else []
    said += [f"--tier {tier}" for tier in options.tier or ()]
    said += [f"--model {model}" for model in options.model or ()]
    return " ".join(said)


def file_of(options: argparse.Namespace) -> Path:
    """Return where the record goes; a quick run overwrites nothing that documents are made of."""
    parts = ["caps", "real" if options.real else "virtual"]
    parts += [] if options.enforce == "bucket" else [options.enforce]
    parts += [options.charge] if options.charge else []
    return place(options, "-".join(parts), partial=bool(options.tier or options.model))


def main(arguments: list[str]) -> int:
    """Play, print, keep, and judge."""
    parser = parser_of("caps", __doc__, "fewer cells, shorter")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--virtual", action="store_true", help="every cell, on a virtual clock")
    how.add_argument("--real", action="store_true", help="a few cells over sockets, 70 s each")
    parser.add_argument("--every", action="store_true", help="each cell by itself")
    parser.add_argument("--enforce", default="bucket", choices=("bucket", "sliding", "fixed", "quantised"))
    parser.add_argument("--charge", choices=get_args(Profile), help="estimate charges, of a server that charges so")
    parser.add_argument("--tier", action="append", choices=TIERS)
    parser.add_argument("--model", action="append")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    record = real.measure(options, command(options)) if options.real else virtual(options)
    failed = sum(record.fails(row) for row in record.rows)
    sys.stdout.write(f"{len(record.rows) - failed} of {len(record.rows)} cells pass\n")
    return concluded(record, file_of(options), _COLUMNS)
