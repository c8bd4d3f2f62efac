"""Kills a job many times over and prints what was lost, sent twice and reported: the long form of a test.

    python tests/jobs/kill_soak.py [--via batch|shared] [--kills 200] [--minutes 14] [--rows 5000] [--seed 1]

A job that ends before it was killed so often is followed by another. Ends with 1 if anything was lost, answered twice,
or not reported. It kills no more once the minutes are over.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from math import inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from killing import Outcome, kill_batches_over_and_over, kill_over_and_over, kill_three_over_and_over

WAYS: dict[str, Callable[..., Outcome]] = {
    "live": partial(kill_over_and_over, within=(0.0, 0.3)),
    "batch": kill_batches_over_and_over,
    "shared": kill_three_over_and_over,
}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--via", choices=WAYS, default="live")
    options.add_argument("--minutes", type=float, default=inf)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--rows", type=int, default=5000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    began, outcomes = time.monotonic(), list[Outcome]()
    while True:
        kills = given.kills - sum(outcome.kills for outcome in outcomes)
        minutes = given.minutes - (time.monotonic() - began) / 60
        if outcomes and (kills <= 0 or minutes <= 0):
            break
        with tempfile.TemporaryDirectory() as place:
            seed = given.seed + len(outcomes)
            outcomes.append(WAYS[given.via](Path(place), rows=given.rows, kills=kills, seed=seed, minutes=minutes))
        print(json.dumps(asdict(outcomes[-1])), flush=True)  # noqa: T201 - a script that prints
    print(f"{len(outcomes)} jobs, {sum(each.kills for each in outcomes)} kills")  # noqa: T201
    return 0 if all(kept(outcome) for outcome in outcomes) else 1


def kept(outcome: Outcome) -> bool:
    """Whether nothing was lost, wrong or kept back, and no more sent twice than was under way."""
    whole = outcome.answered == outcome.rows and not outcome.wrong
    return whole and not outcome.unreported and outcome.sent_twice <= outcome.in_flight_at_kills


if __name__ == "__main__":
    sys.exit(main())
