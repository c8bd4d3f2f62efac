"""Admissions per second through the scheduler with no limit in the way, and how late it wakes up, on the real clock.

Side by side in one run: a bare `aiolimiter` acquire loop, an `asyncio.Semaphore`, and the scheduler, each with the same
tasks: many contend, each is admitted, yields once and ends. Rounds alternate, so that a busy machine is busy for all.

    python -m bench admission [--quick] [--tasks 20000] [--rounds 5] [--wakes 400]

Ends with 1 if a target is missed: at least 0.25 of the semaphore's rate, and a wake-up at most 5 ms late in 99 of 100.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any

from aiolimiter import AsyncLimiter

from bench.record import Record, Row, concluded, machine, parser_of, place, versions
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


def measure(tasks: int, rounds: int, wakes: int) -> list[Row]:
    """The medians of so many rounds, and the lateness of so many wake-ups."""
    ways: dict[str, Callable[[int], Awaitable[float]]] = {
        "bare aiolimiter": limiter,
        "asyncio.Semaphore": semaphore,
        "the scheduler": scheduler,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(asyncio.run(_awaited(way, tasks)))
    rows: list[Row] = [{"what": name, "per_second": round(statistics.median(rates))} for name, rates in found.items()]
    mine = rows[-1]
    mine["to_semaphore"] = round(mine["per_second"] / rows[1]["per_second"], 3)
    late, sleep = percentiles(asyncio.run(lateness(wakes))), percentiles(asyncio.run(sleep_lateness(wakes)))
    mine |= {"late_p50_ms": late["p50"], "late_p99_ms": late["p99"]}
    return [*rows, {"what": "a bare asyncio.sleep", "sleep_p50_ms": sleep["p50"], "sleep_p99_ms": sleep["p99"]}]


async def _awaited(way: Callable[[int], Awaitable[float]], tasks: int) -> float:
    return await way(tasks)


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    parser = parser_of("admission", __doc__, "two short rounds")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wakes", type=int, default=400)
    options = parser.parse_args(arguments)
    sizes = (5_000, 2, 50) if options.quick else (options.tasks, options.rounds, options.wakes)
    before = machine()
    record = Record(
        bench="admission",
        rows=measure(*sizes),
        targets={"to_semaphore": f">= {LEAST_RATIO:g}", "late_p99_ms": f"<= {LATEST_MS:g}"},
        command=" ".join(["python -m bench admission", *arguments]),
        seed=SEED,
        machine=before,
        versions=versions("aiolimiter"),
    )
    return concluded(record, place(options, "admission"))
