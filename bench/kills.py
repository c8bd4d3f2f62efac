"""Jobs killed with SIGKILL over and over: what was lost, sent twice and kept back.

Three kinds are killed side by side: a job on its own, three that share one key, and one that goes through the Batch
API. A job that ends before it was killed so often is followed by another; no more is killed once the minutes are over.

    python -m bench kills [--quick] [--via live shared batch] [--kills 500] [--minutes 20] [--seed 1]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from killing import Outcome, kill_batches_over_and_over, kill_over_and_over, kill_three_over_and_over

from bench.record import Record, concluded, machine, parser_of, place, versions

WAYS: Mapping[str, tuple[str, Callable[..., Outcome], int]] = {
    "live": ("a job", partial(kill_over_and_over, within=(0.0, 0.3)), 12_000),
    "shared": ("three jobs on one key", kill_three_over_and_over, 4_000),
    "batch": ("a job of batches", kill_batches_over_and_over, 4_000),
}
"""By name: what it is in words, what does it, and the rows of each job."""

_FEW = 20  # kills, which end before a large job does

TARGETS = {"kills": ">= 500", "lost_or_wrong": "<= 0", "unreported": "<= 0", "beyond_in_flight": "<= 0"}


def main(arguments: list[str]) -> int:
    """Kill, and say what came of it."""
    parser = parser_of("kills", __doc__, "20 kills each in a minute")
    parser.add_argument("--via", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    kills, minutes = (_FEW, 1.0) if options.quick else (options.kills, options.minutes)
    ends = time.monotonic() + minutes * 60
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda way: over_and_over(way, kills, ends, options.seed), options.via))
    record = Record(
        "kills",
        rows,
        {**TARGETS, "kills": f">= {kills}"},
        command=" ".join(("python -m bench kills", *arguments)),
        seed=options.seed,
        machine=machine(),
        versions=versions("aiohttp"),
    )
    partly = set(options.via) != set(WAYS) or kills < 500
    return concluded(record, place(options, "kills", partial=partly))


def over_and_over(way: str, kills: int, ends: float, seed: int) -> dict[str, Any]:
    """Kill jobs of one kind so many times, or until the time is over."""
    what, kill, rows = WAYS[way]
    rows = rows if kills > _FEW else rows // 10
    outcomes: list[Outcome] = []
    while (left := kills - sum(outcome.kills for outcome in outcomes)) > 0 and time.monotonic() < ends:
        minutes = (ends - time.monotonic()) / 60
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(kill(Path(folder), rows=rows, kills=left, seed=seed + len(outcomes), minutes=minutes))
        sys.stderr.write(f"{way}: {kills - left + outcomes[-1].kills} of {kills} kills\n")
        sys.stderr.flush()
    return {"via": way, "what": what, **summed(outcomes)}


def summed(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return what came of all jobs of one kind."""
    return {
        "jobs": len(outcomes),
        "rows": sum(each.rows for each in outcomes),
        "kills": sum(each.kills for each in outcomes),
        "lost_or_wrong": sum(each.wrong for each in outcomes)
        + sum(abs(each.rows - each.answered) for each in outcomes),
        "in_flight_at_kills": sum(each.in_flight_at_kills for each in outcomes),
        "answered_twice": sum(each.served_twice for each in outcomes),
        "beyond_in_flight": sum(max(each.sent_twice - each.in_flight_at_kills, 0) for each in outcomes),
        "unreported": sum(len(each.unreported) + len(each.miscounted) for each in outcomes),
        "seconds": round(sum(each.seconds for each in outcomes), 1),
    }
