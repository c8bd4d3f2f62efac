"""Admissions per second through the scheduler with no limit in the way, and how late it wakes up, on the real clock.

Side by side in one run: a bare `aiolimiter` acquire loop, an `asyncio.Semaphore`, and the scheduler, each with the same
tasks: many contend, each is admitted, yields once and ends. Rounds alternate, so that a busy machine is busy for all.

    python bench/admission.py [--tasks 20000] [--rounds 5] [--wakes 400] [--out bench/results/admission.json]

Exits 1 if a target is missed: at least 0.25 of the semaphore's rate, and a wake-up at most 5 ms late in 99 of 100.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from aiolimiter import AsyncLimiter

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit

SLOTS = 1000
SEED = 1
LEAST_RATIO = 0.25
LATEST_MS = 5.0


async def rate(tasks: int, enter: Callable[[], AbstractAsyncContextManager[Any]], end: Callable[[Any], None]) -> float:
    """Return admissions per second of so many tasks that contend."""

    async def one() -> None:
        async with enter() as turn:
            await asyncio.sleep(0)
            end(turn)

    start = perf_counter()
    await asyncio.gather(*(one() for _ in range(tasks)))
    return tasks / (perf_counter() - start)


async def limiter(tasks: int) -> float:
    """Admit by a bare aiolimiter."""
    bare = AsyncLimiter(1e9, 1)
    return await rate(tasks, lambda: bare, lambda _: None)


async def semaphore(tasks: int) -> float:
    """Admit by a semaphore."""
    bare = asyncio.Semaphore(SLOTS)
    return await rate(tasks, lambda: bare, lambda _: None)


async def scheduler(tasks: int) -> float:
    """Admit by a lane with two limits that nothing reaches."""
    far = [Limit("requests", 1e12, MINUTE), Limit("tokens", 1e15, MINUTE)]
    lanes = Scheduler({"m": far}, concurrency=SLOTS)
    async with lanes.reserve("m", tokens=800) as turn:  # the first request goes alone
        turn.used()
    return await rate(tasks, lambda: lanes.reserve("m", tokens=800), lambda turn: turn.used())


async def lateness(wakes: int) -> list[float]:
    """Return by how many milliseconds each turn of an empty bucket came after the instant its limit allowed it."""
    rng, loop = random.Random(SEED), asyncio.get_running_loop()
    lanes = Scheduler({"m": [Limit("tokens", 6_000_000, MINUTE)]}, slack=0.0)
    async with lanes.reserve("m", tokens=6_000_000) as turn:
        turn.used()
    bucket, late = lanes.lane("m").ledger.quota.buckets[0], []
    for _ in range(wakes):
        tokens = rng.uniform(500, 4_000)  # 5 to 40 ms of refill
        due = bucket.ready_at(tokens)
        async with lanes.reserve("m", tokens=tokens) as turn:
            late.append((loop.time() - due) * 1000)
            turn.used()
    return late


async def sleep_lateness(wakes: int) -> list[float]:
    """Return by how many milliseconds a bare sleep of the same lengths came late: what the machine itself adds."""
    rng, loop, late = random.Random(SEED), asyncio.get_running_loop(), list[float]()
    for _ in range(wakes):
        due = loop.time() + rng.uniform(0.005, 0.04)
        await asyncio.sleep(due - loop.time())
        late.append((loop.time() - due) * 1000)
    return late


def percentiles(late: list[float]) -> dict[str, float]:
    """Return the middle and the last but one in a hundred."""
    late = sorted(late)
    return {"p50": round(late[len(late) // 2], 3), "p99": round(late[int(len(late) * 0.99)], 3)}


def measure(tasks: int, rounds: int, wakes: int) -> dict[str, Any]:
    """Return the medians of so many rounds, and the lateness of so many wake-ups."""
    ways: dict[str, Callable[[int], Awaitable[float]]] = {
        "aiolimiter": limiter,
        "semaphore": semaphore,
        "scheduler": scheduler,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(asyncio.run(_awaited(way, tasks)))
    per_second = {name: round(statistics.median(rates)) for name, rates in found.items()}
    return {
        "admissions_per_second": per_second,
        "scheduler_to_semaphore": round(per_second["scheduler"] / per_second["semaphore"], 3),
        "late_ms": percentiles(asyncio.run(lateness(wakes))),
        "bare_sleep_late_ms": percentiles(asyncio.run(sleep_lateness(wakes))),
    }


async def _awaited(way: Callable[[int], Awaitable[float]], tasks: int) -> float:
    return await way(tasks)


def main() -> int:
    """Measure, print, keep, and judge."""
    parser = argparse.ArgumentParser(description="Admissions per second and lateness of the scheduler.")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wakes", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "admission.json")
    options = parser.parse_args()
    result = measure(options.tasks, options.rounds, options.wakes)
    passed = result["scheduler_to_semaphore"] >= LEAST_RATIO and result["late_ms"]["p99"] <= LATEST_MS
    result |= {
        "targets": {"scheduler_to_semaphore": LEAST_RATIO, "late_ms_p99": LATEST_MS},
        "passed": passed,
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {"aiolimiter": version("aiolimiter"), "ratelimit-scheduler": version("ratelimit-scheduler")},
        "seed": SEED,
        "command": f"bench/admission.py --tasks {options.tasks} --rounds {options.rounds} --wakes {options.wakes}",
    }
    text = json.dumps(result, indent=2) + "\n"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(text, end="")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
