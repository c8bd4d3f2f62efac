"""How much of each tier's cap the scheduler uses over ten virtual minutes, and how often it is refused.

The service is the scripted one of the tests: a bucket that refills continuously, requests 20 to 900 ms on the way, and
answers after 0.3 to 30 s. The tests show the same on shorter horizons for large tiers; here each has its ten minutes.

    python bench/caps.py --virtual [--minutes 10] [--tier tier-5] [--out bench/results/caps.json]

Exits 1 if anything is refused or less than 99.5 % of what the bucket could have admitted, less a second of refill, is.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE
from ratelimit.limits.tiers import load
from ratelimit.testing.clock import run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Network, Service, flood, of_tokens

LEAST = 0.995
SEED = 1
CELLS = [("gpt-4o-mini", tier) for tier in ("free", "tier-1", "tier-2", "tier-3", "tier-4", "tier-5")] + [
    ("o4-mini", tier) for tier in ("tier-1", "tier-2", "tier-3", "tier-4", "tier-5")
]


def fill(model: str, tier: str, minutes: float) -> dict[str, Any]:
    """Run one cell with more small requests than it can pass, and return what became of them."""
    limits = tuple(load().limits(model, tier))
    rpm = next(limit.amount for limit in limits if (limit.unit, limit.window) == ("requests", MINUTE))
    service = Service.of(limits)

    async def play() -> None:
        scheduler = Scheduler({"m": limits}, concurrency=100_000)
        backlog = max(round(rpm / 2), 200)
        network = Network.rough(SEED)
        await flood(scheduler, service, network, minutes * MINUTE, asks=lambda: of_tokens(20), backlog=backlog)

    start = perf_counter()
    run(play())
    could = int(rpm * (1 + minutes) - rpm / MINUTE)
    admitted = service.count(0, minutes * MINUTE)
    return {
        "model": model,
        "tier": tier,
        "rpm": rpm,
        "admitted": admitted,
        "of_the_cap": round(admitted / could, 5),
        "refused": len(service.refused),
        "seconds": round(perf_counter() - start, 1),
    }


def main() -> int:
    """Fill the cells, print, keep, and judge."""
    parser = argparse.ArgumentParser(description="How much of each tier's cap the scheduler uses.")
    parser.add_argument("--virtual", action="store_true", required=True, help="on a virtual clock, the only way yet")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--tier", action="append", help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "caps.json")
    options = parser.parse_args()
    cells = []
    for model, tier in CELLS:
        if not options.tier or tier in options.tier:
            cells.append(fill(model, tier, options.minutes))
            print(json.dumps(cells[-1]), flush=True)
    passed = all(cell["refused"] == 0 and cell["of_the_cap"] >= LEAST for cell in cells)
    result = {
        "cells": cells,
        "targets": {"of_the_cap": LEAST, "refused": 0},
        "passed": passed,
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "seed": SEED,
        "command": f"python bench/caps.py --virtual --minutes {options.minutes:g}",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
