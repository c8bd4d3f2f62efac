"""The price of a turn: reserve + settle over three buckets, as a ratio to one uncontended aiolimiter acquire.

Both run in one process on one event loop, in short rounds taken alternately, so that whatever else the machine does
falls on both; the ratio is the median of the rounds' ratios. The quota is that of a lane with requests per minute and
day and tokens per minute, large enough that nothing waits; each hold is settled with fewer tokens than it took, so that
something is given back. What a request that is really sent costs beside that (its mark, the meter) is reported and not
judged.

    python -m bench core [--quick] [--rounds 60] [--calls 5000] [--seed 1]

Ends with 1 above a ratio of 2.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable

from aiolimiter import AsyncLimiter

from bench.record import Record, Row, concluded, machine, parser_of, place, versions
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


async def measure(rounds: int, calls: int, seed: int) -> dict[str, list[float]]:
    """Seconds per call in interleaved rounds; the first of each kind warms up and is not counted."""
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
    return {name: times[1:] for name, times in seen.items()}


def rows_of(seen: dict[str, list[float]]) -> list[Row]:
    """Each kind beside the acquires of the same rounds."""
    acquires, found = seen["acquire"], list[Row]()
    for name, times in seen.items():
        row: Row = {"what": name, "us": round(statistics.median(times) * 1e6, 3)}
        if times is not acquires:
            ratios = sorted(mine / theirs for mine, theirs in zip(times, acquires, strict=True))
            row["times"] = round(statistics.median(ratios), 3)
            row |= {"lowest": round(ratios[0], 3), "highest": round(ratios[-1], 3)}
        found.append(row)
    found[1]["ratio"] = found[1]["times"]  # of the two, this is what is judged
    return found


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    parser = parser_of("core", __doc__, "ten rounds")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    before, rounds = machine(), 10 if options.quick else options.rounds
    record = Record(
        bench="core",
        rows=rows_of(asyncio.run(measure(rounds, options.calls, options.seed))),
        targets={"ratio": f"<= {TARGET:g}"},
        command=" ".join(["python -m bench core", *arguments]),
        seed=options.seed,
        notes=[f"medians of {rounds} rounds of {options.calls:,} calls"],
        machine=before,
        versions=versions("aiolimiter"),
    )
    return concluded(record, place(options, "core"))
