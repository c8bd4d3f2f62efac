"""Kills a job many times over and prints what was lost, sent twice and reported: the long form of a test.

    python tests/jobs/kill_soak.py [--via batch|shared] [--kills 200] [--minutes 14] [--rows 5000] [--seed 1]

Ends with 1 if anything was lost, answered twice, or not reported. It kills no more once the minutes are over.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from killing import kill_batches_over_and_over, kill_over_and_over, kill_three_over_and_over


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--via", choices=["live", "batch", "shared"], default="live")
    options.add_argument("--minutes", type=float, default=inf)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--rows", type=int, default=5000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        job: dict[str, Any] = {"rows": given.rows, "kills": given.kills, "seed": given.seed, "minutes": given.minutes}
        if given.via == "batch":
            outcome = kill_batches_over_and_over(Path(place), **job)
        elif given.via == "shared":
            outcome = kill_three_over_and_over(Path(place), **job)
        else:
            outcome = kill_over_and_over(Path(place), within=(0.0, 0.3), **job)
    print(json.dumps(asdict(outcome), indent=2))  # noqa: T201 - a script that prints
    kept = outcome.answered == outcome.rows and not outcome.wrong
    return 0 if kept and not outcome.unreported and outcome.sent_twice <= outcome.in_flight_at_kills else 1


if __name__ == "__main__":
    sys.exit(main())
