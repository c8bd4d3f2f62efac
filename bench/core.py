"""The price of a turn: reserve + settle over three buckets, as a ratio to one uncontended aiolimiter acquire.

Both run in one process on one event loop, in short rounds taken alternately, so that whatever else the machine does
falls on both; the ratio is the median of the rounds' ratios. The quota is that of a lane with requests per minute and
day and tokens per minute, large enough that nothing waits; each hold is settled with fewer tokens than it took, so that
something is given back. What a request that is really sent costs beside that (its mark, the meter) is reported and not
judged.

    python bench/core.py [--rounds 60] [--calls 5000] [--seed 1] [--out bench/results/core.json]

Prints one JSON object; ends with 1 above a ratio of 2.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from aiolimiter import AsyncLimiter

from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.quota import Cost, Hold, Quota

TARGET = 2.0
PLENTY = 1e12

Round = Callable[[int], Awaitable[float]]


async def acquire(calls: int) -> float:
    """Seconds per acquire of a limiter that nobody else uses and that is never short."""
    limiter = AsyncLimiter(PLENTY, MINUTE)
    start = time.perf_counter()
    for _ in range(calls):
        await limiter.acquire()
    return (time.perf_counter() - start) / calls


def turns(costs: list[tuple[Cost, Cost]], *, sent: bool) -> Round:
    """A round of holds taken and settled, each estimated at its first cost and used at its second."""

    async def round_(calls: int) -> float:
        clock = asyncio.get_running_loop().time
        limits = [Limit("requests", PLENTY, MINUTE), Limit("tokens", PLENTY, MINUTE), Limit("requests", PLENTY, DAY)]
        quota = Quota(limits, clock())
        reserve, settle, leave = quota.reserve, quota.settle, quota.sent
        start = time.perf_counter()
        for estimate, actual in costs[:calls]:
            hold = reserve(estimate, clock())
            assert isinstance(hold, Hold)
            if sent:
                leave(hold, clock())
            settle(hold, actual, clock())
        return (time.perf_counter() - start) / calls

    return round_


def draw(seed: int, calls: int) -> list[tuple[Cost, Cost]]:
    """Costs estimated and used: some hundreds of tokens, of which a part was not needed."""
    source = random.Random(seed)
    estimates = [source.randint(100, 2000) for _ in range(calls)]
    return [
        ({"requests": 1, "tokens": tokens}, {"requests": 1, "tokens": source.randint(1, tokens - 1)})
        for tokens in estimates
    ]


async def measure(rounds: int, calls: int, seed: int) -> dict[str, float]:
    """The medians of interleaved rounds; the first of each kind warms up and is not counted."""
    costs = draw(seed, calls)
    kinds: dict[str, Round] = {
        "acquire": acquire,
        "reserve and settle": turns(costs, sent=False),
        "reserve, sent and settle": turns(costs, sent=True),
    }
    seen: dict[str, list[float]] = {name: [] for name in kinds}
    gc.disable()
    for _ in range(rounds + 1):
        for name, run in kinds.items():
            seen[name].append(await run(calls))
        gc.collect()
    gc.enable()
    microseconds = {name: statistics.median(times[1:]) * 1e6 for name, times in seen.items()}
    ratios = [ours / theirs for ours, theirs in zip(seen["reserve and settle"], seen["acquire"], strict=True)][1:]
    with_sent = [ours / theirs for ours, theirs in zip(seen["reserve, sent and settle"], seen["acquire"], strict=True)][
        1:
    ]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_lowest": round(min(ratios), 3),
        "ratio_highest": round(max(ratios), 3),
        "ratio_with_sent": round(statistics.median(with_sent), 3),
        **{f"us_{name.replace(', ', '_').replace(' ', '_')}": round(value, 3) for name, value in microseconds.items()},
    }


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.rounds, options.calls, options.seed))
    result = {
        "what": "reserve + settle over three buckets / one uncontended aiolimiter acquire",
        "target": TARGET,
        **figures,
        "rounds": options.rounds,
        "calls": options.calls,
        "seed": options.seed,
        "command": f"python bench/core.py --rounds {options.rounds} --calls {options.calls} --seed {options.seed}",
        "python": platform.python_version(),
        "aiolimiter": version("aiolimiter"),
        "ratelimit-scheduler": version("ratelimit-scheduler"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    return int(figures["ratio"] > TARGET)


if __name__ == "__main__":
    sys.exit(main())
