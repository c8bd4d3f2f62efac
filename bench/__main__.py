"""The one door to every bench.

python -m bench BENCH [--quick] [options]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

BENCHES = {
    "caps": "every cell of the table of tiers: how much of its cap is used (--virtual or --real)",
    "peers": "the same jobs through what people use instead, side by side",
    "core": "a turn over three limits, beside one acquire of a bare limiter",
    "admission": "admissions per second, and how late the scheduler wakes up",
    "wire": "requests per second and processor time per request, beside a bare client",
    "dropin": "the official SDK with and without the drop-in",
    "jobs": "a file of requests from end to end",
    "batch": "jobs through the Batch API: how full its queue is kept, and what a hundred crashes cost",
    "mock_ceiling": "what the mock server itself can answer",
    "overhead": "core, admission, wire, dropin and mock_ceiling in turn",
    "scale": "how cost grows with requests, waiters and lanes",
    "soak": "long at a large tier with faults: nothing grows, nothing is lost",
    "kills": "jobs killed 500 times each way: what is lost, sent twice and kept back",
    "shared": "programs that share one key's limits: what they use together, through death and outage",
    "ray": "a job on a cluster of this machine, one of its workers killed halfway",
    "docs": "write the figures into the documents (--check: see that they agree)",
}
_OVERHEAD = ("core", "admission", "wire", "dropin", "mock_ceiling")


def usage() -> str:
    """Return the benches there are."""
    lines = [f"  {name:<13} {what}" for name, what in BENCHES.items()]
    return "\n".join(["usage: python -m bench BENCH [options]; python -m bench BENCH --help", "", *lines, ""])


def main(arguments: list[str]) -> int:
    """Run one bench and return its verdict: 0 for all targets met, 1 for one missed, 2 for no such bench."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        sys.stdout.write(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in BENCHES:
        sys.stderr.write(f"there is no bench {name!r}; choose one of {', '.join(BENCHES)}\n")
        return 2
    names = _OVERHEAD if name == "overhead" else (name,)
    verdicts = []
    for each in names:
        if len(names) > 1:
            sys.stderr.write(f"{each}: {BENCHES[each]}\n")
        run: Callable[[list[str]], int] = import_module(f"bench.{each}").main
        verdicts.append(run(rest))
    return max(verdicts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
