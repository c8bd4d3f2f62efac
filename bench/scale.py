"""How the cost of a request grows with how many there are, how many wait, and over how many lanes they are spread.

`requests` go through the whole client to a mock server in another process that limits nothing; `waiters` stand in one
lane, on a virtual clock, while others are admitted ahead of them; `lanes` share as many admissions; `rows` goes on
with a job of which ten rows are left. Each
point is a process of its own, so that its peak memory is its own.

    python -m bench scale [--quick] [--most 1000000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import Any

import ratelimit
from bench import jobs
from bench.record import Progress, Record, concluded, machine, parser_of, place, versions
from bench.server import serving
from ratelimit.jobs import records
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.source import Source
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.testing.clock import run
from ratelimit.wire.messages import Reply

POINTS: dict[str, tuple[int, ...]] = {
    "requests": (1_000, 10_000, 100_000, 1_000_000),
    "rows": (1_000, 10_000, 100_000, 1_000_000),
    "waiters": (10, 100, 1_000, 10_000, 100_000),
    "lanes": (1, 3, 10, 30, 100),
}
QUICK: dict[str, tuple[int, ...]] = {
    "requests": (1_000, 3_000),
    "rows": (1_000, 10_000),
    "waiters": (10, 1_000),
    "lanes": (1, 10),
}
LONGEST_RESUME = 60.0  # seconds, of a million rows
MOST_GROWTH = 2.0  # of the time per request, from the fewest to the most: a heap's logarithm stays below
_ADMISSIONS = 5_000
_MANY = 10**9


def peak_mb() -> float:
    """Return the most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def requests(many: int) -> dict[str, Any]:
    """Send so many through the client."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "abc " * 50}], "max_tokens": 16}
    options = ["--tier", "tier-5", "--model", "gpt-4o-mini", "--rpm", str(_MANY), "--tpm", str(_MANY)]
    with serving(options) as mock:
        client = ratelimit.open(
            base_url=mock.base_url, api_key="sk-bench", tier="tier-5", rpm=_MANY, tpm=_MANY, concurrency=64
        )
        async with client:
            async for result in client.map(body for _ in range(200)):  # warmed up
                result.unwrap()
            start = time.process_time()
            async for result in client.map(body for _ in range(many)):
                result.unwrap()
            spent = time.process_time() - start
    return {"requests": many, "us_per_request": round(spent / many * 1e6, 1), "rss_mb": round(peak_mb(), 1)}


async def admissions(lanes: int, waiters: int) -> tuple[float, float]:
    """Return the processor time to join the lanes and to be admitted, a request, with so many waiting throughout."""
    names = [f"lane-{number}" for number in range(lanes)]
    limit = Limit("requests", 60_000, MINUTE)
    scheduler = ratelimit.Scheduler({name: [limit] for name in names}, concurrency=_MANY, slack=0.0)
    for name in names:  # the first request of a lane goes alone
        async with scheduler.reserve(name) as turn:
            turn.used()
    admitted, done, tasks = 0, asyncio.Event(), set[asyncio.Task[None]]()

    def join(number: int) -> None:
        task = asyncio.get_running_loop().create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def one(number: int) -> None:
        nonlocal admitted
        async with scheduler.reserve(names[number % lanes], priority=1.0) as turn:
            turn.used()
        admitted += 1
        join(number)
        if admitted == _ADMISSIONS:
            done.set()

    start = time.process_time()
    for number in range(waiters):
        join(number)
    await asyncio.sleep(0)
    joined = time.process_time()
    await done.wait()
    end = time.process_time()
    for task in tasks:
        task.cancel()
    return (joined - start) / waiters * 1e6, (end - joined) / _ADMISSIONS * 1e6


async def waiters(many: int) -> dict[str, Any]:
    """Admit while so many wait."""
    before = peak_mb()
    joining, admitting = await admissions(1, many)
    return {
        "waiters": many,
        "us_per_admission": round(admitting, 1),
        "us_to_join": round(joining, 1),
        "kb_per_waiter": round((peak_mb() - before) * 1024 / many, 2) if many >= 10_000 else None,
    }


async def resuming(many: int) -> dict[str, Any]:
    """Go on with a job of so many rows of which the last few are left."""
    with tempfile.TemporaryDirectory() as folder, jobs.mock(*jobs.UNLIMITED) as url:
        place, left = Path(folder), 10
        jobs.write(place / "r.jsonl", many, 200)
        with Journal(place / "o.jsonl") as journal:
            for row in islice(Source(str(place / "r.jsonl")).rows(), many - left):
                journal.sending(row)
                journal.answered(records.answered(row, Reply(200, {}, b'{"choices":[]}')))
        resumed = jobs.run(url, place, "o.jsonl", *jobs.UNLIMITED)
    assert resumed["summary"]["answered"] >= left
    seconds = resumed["first_sent"] or 0.0
    rss = max(megabytes for _, megabytes in resumed["memory"])
    return {"rows": many, "resume_s": round(seconds, 2), "rss_mb": round(rss, 1)}


async def lanes(many: int) -> dict[str, Any]:
    """Admit over so many lanes, with a thousand waiting in all."""
    _, admitting = await admissions(many, 1_000)
    return {"lanes": many, "us_per_admission": round(admitting, 1), "rss_mb": round(peak_mb(), 1)}


WAYS: dict[str, Callable[[int], Awaitable[dict[str, Any]]]] = {
    "requests": requests,
    "rows": resuming,
    "waiters": waiters,
    "lanes": lanes,
}


def point(what: str, many: int) -> dict[str, Any]:
    """Measure one point in a process of its own."""
    command = [sys.executable, "-m", "bench", "scale", "--point", what, str(many)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout)
    return {"what": what, **found}


def growth(rows: list[dict[str, Any]]) -> float | None:
    """Return by what factor the time of one grew from the fewest to the most; None for what is read from end to end."""
    if rows[0]["what"] == "rows":
        return None
    key = "us_per_request" if rows[0]["what"] == "requests" else "us_per_admission"
    return round(float(rows[-1][key] / rows[0][key]), 2)


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    parser = parser_of("scale", __doc__, "two points each")
    parser.add_argument("--most", type=int, default=10**6, help="leave out the points above")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.point:
        what, many = options.point[0], int(options.point[1])
        way = WAYS[what](many)
        found = asyncio.run(_awaited(way)) if what in {"requests", "rows"} else run(_awaited(way))
        sys.stdout.write(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)  # a hundred thousand cancelled waiters need not be taken down one by one
    every = QUICK if options.quick else POINTS
    points = {name: below for name, many in every.items() if (below := [each for each in many if each <= options.most])}
    progress, rows = Progress(sum(map(len, points.values()))), list[dict[str, Any]]()
    for what, numbers in points.items():
        mine = []
        for many in numbers:
            mine.append(point(what, many))
            progress.say(f"{what} {many:,}")
        mine[-1] |= {} if (grown := growth(mine)) is None else {"growth": grown}
        rows += mine
    record = Record(
        bench="scale",
        rows=rows,
        targets={"growth": f"<= {MOST_GROWTH:g}", "resume_s": f"<= {LONGEST_RESUME:g}"},
        command=" ".join(["python -m bench scale", *arguments]),
        notes=[f"the time of one grew by {row['growth']:g} with {row['what']}" for row in rows if "growth" in row],
        machine=machine(),
        versions=versions("aiohttp", "aiolimiter"),
    )
    return concluded(record, place(options, "scale"))


async def _awaited(way: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return await way
