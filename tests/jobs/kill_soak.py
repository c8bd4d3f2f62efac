"""Kills a job many times over and prints what was lost, sent twice and reported: the long form of a test.

    python tests/jobs/kill_soak.py [--kills 200] [--rows 5000] [--seed 1]

Ends with 1 if anything was lost, answered twice, or not reported.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from killing import kill_over_and_over


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--rows", type=int, default=5000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        outcome = kill_over_and_over(
            Path(place), rows=given.rows, kills=given.kills, within=(0.0, 0.3), seed=given.seed
        )
    print(json.dumps(asdict(outcome), indent=2))  # noqa: T201 - a script that prints
    kept = outcome.answered == outcome.rows and not outcome.wrong
    return 0 if kept and not outcome.unreported and outcome.sent_twice <= outcome.in_flight_at_kills else 1


if __name__ == "__main__":
    sys.exit(main())
