"""Jobs through the Batch API at a tier-1 queue, in virtual time, the mock server as judge: how full the queue is kept.

A job of ten queues' worth of tokens goes by batch, then by both routes under a deadline; another is killed a hundred
times at random moments. How many tokens are enqueued is noted each time that it changes, as the mock counts them; work
is left until the mock has let in the last batch. What has been executed twice would be paid for twice.

Rows are planned apart from that, without a service: looked through, put into the spool, and cut into files. Processor
time is that of client and server together elsewhere. Every case is a process of its own, so that its memory is its own.

    python -m bench batch [--quick] [--only TEXT]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.record import Progress, Record, Row, concluded, machine, parser_of, place, versions
from bench.scale import peak_mb
from ratelimit.compose import make_table
from ratelimit.jobs.batches.backlog import Backlog
from ratelimit.jobs.batches.intake import look_through, take_in
from ratelimit.jobs.batches.job import run
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Job
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.source import Row as Asked
from ratelimit.jobs.source import Source
from ratelimit.jobs.summary import Summary
from ratelimit.jobs.tally import Tally
from ratelimit.limits.charge import billed_input, measure
from ratelimit.settings import load_settings
from ratelimit.testing import clock
from ratelimit.testing.mock import MockServer

MODEL, TIER, QUEUE = "gpt-4o-mini", "tier-1", 2_000_000
ROWS, PLANNED = 200_000, (100_000, 1_000_000)
QUICK_ROWS, QUICK_PLANNED = 4_000, (1_000, 10_000)
TAKES = 1000.0  # seconds, a batch of a fiftieth of the queue, of which the job is ten
DEADLINE = 3 * 3600.0
CRASHES = 100
TARGETS = {
    "most": "<= 1",
    "fill": ">= 0.95",
    "too_much": "<= 0",
    "not_once": "<= 0",
    "executed_twice": "<= 0",
    "late_s": "<= 0",
    "growth": "<= 1.5",
}
_EPOCH = 1.8e9


class Levels(Counter[tuple[str, str]]):
    """The mock's count of what is enqueued, with every change of it noted."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[float, int]] = []

    def __setitem__(self, lane: tuple[str, str], level: int) -> None:
        """Take in a level and note it."""
        super().__setitem__(lane, level)
        self.noted.append((asyncio.get_running_loop().time(), level))

    def fill(self, limit: int) -> dict[str, float]:
        """Return how full the queue was: at most, on average and at least from when it was first full."""
        last = max(n for n in range(1, len(self.noted)) if self.noted[n][1] > self.noted[n - 1][1])
        left = self.noted[: last + 1]
        full = next((n for n, (_, level) in enumerate(left) if level >= 0.95 * limit), 0)
        amount = sum(level * (after - at) for (at, level), (after, _) in itertools.pairwise(left))
        return {
            "most": max(level for _, level in self.noted) / limit,
            "fill": amount / (left[-1][0] - left[0][0]) / limit,
            "least": min(level for _, level in left[full:]) / limit,
        }


def write(path: Path, rows: int) -> None:
    """Write requests of mixed sizes, each of which asks for its own number."""
    chance = random.Random(8)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            text = f"what is {number:07}?" + " understanding" * chance.randrange(5, 46)
            body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 64}
            line = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


def wrong(output: Path, rows: int) -> int:
    """Return how many rows have not exactly one answer, and that to their own question."""
    seen, bad = set[str](), 0
    with output.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            name, body = record["custom_id"], record["response"]["body"]
            question = f"what is {int(name.removeprefix('row-')):07}?"
            bad += name in seen or not body["choices"][0]["message"]["content"].startswith(question)
            seen.add(name)
    return bad + rows - len(seen)


class Scene:
    """A directory with a job in it, and a mock server."""

    def __init__(self, folder: Path, rows: int, queue: int) -> None:
        self.rows = rows
        self.output = folder / "results.jsonl"
        self.queue = queue
        self.said: list[str] = []
        self.mock = MockServer(tier=TIER, echo=True, batch_queue=queue, batch_speed=rows / 500 / TAKES, latency="0.8")
        self.levels = self.mock._batches._enqueued = Levels()  # noqa: SLF001 - the judge's own count
        self._requests = folder / "requests.jsonl"
        self._tiers = folder / "tiers.toml"
        self._tiers.write_text(
            f"[models.{MODEL}.tiers.{TIER}]\nrpm = 500\nrpd = 10000\ntpm = 200000\nbatch_queue = {queue}\n"
        )
        write(self._requests, rows)

    async def run(self, deadline: float | None = None) -> Summary:
        """Run the job once, or on from where it was."""
        settings = load_settings(
            base_url=self.mock.base_url, api_key="sk-bench", tier=TIER, tiers_file=str(self._tiers), shared="off"
        )
        job = Job(Source(str(self._requests)), self.output, Options(deadline=deadline))
        return await run(job, settings, say=self.said.append, both_routes=deadline is not None)

    def judged(self, **more: Any) -> Row:
        """Return what the mock has seen."""
        about = [batch.about for batch in self.mock._batches._batches.values()]  # noqa: SLF001 - as above
        by_batch = sum(each["request_counts"]["completed"] for each in about)
        codes = Counter(problem["code"] for each in about if each["errors"] for problem in each["errors"]["data"])
        fill = {name: round(part, 4) for name, part in self.levels.fill(self.queue).items()}
        return {
            "rows": self.rows,
            "batches": len(about),
            "by_batch": by_batch,
            **fill,
            "too_much": codes.total(),
            "not_once": wrong(self.output, self.rows),
            "executed_twice": by_batch + self.mock.stats.admitted - self.rows,
            **more,
        }


@contextmanager
def wall() -> Iterator[None]:
    """Have the time of day go with the loop's."""
    loop = asyncio.get_running_loop()
    with patch("time.time", lambda: _EPOCH + loop.time()):
        yield


async def whole(scene: Scene, deadline: float | None) -> Row:
    """Run a job from beginning to end."""
    loop = asyncio.get_running_loop()
    with wall():
        async with scene.mock:
            began, start = loop.time(), time.process_time()
            summary = await scene.run(deadline)
            spent, took = time.process_time() - start, loop.time() - began
            assert (summary.left, summary.failed) == (0, 0), scene.said
            more = {} if deadline is None else {"late_s": round(took - deadline)}
            return scene.judged(took_h=round(took / 3600, 2), cpu_us=round(spent / scene.rows * 1e6), **more)


async def crashing(scene: Scene, crashes: int) -> Row:
    """Kill a job at random moments and go on with it each time."""
    loop, chance, done = asyncio.get_running_loop(), random.Random(8), 0
    apart = 3 * 10 * TAKES / crashes  # so that they are spread over the whole of it
    with wall():
        async with scene.mock:
            began, start = loop.time(), time.process_time()
            while done < crashes:
                going = asyncio.create_task(scene.run())
                await asyncio.wait([going], timeout=chance.choice((chance.uniform(0, 2), chance.uniform(0, apart))))
                if going.done():
                    break
                done += 1
                going.cancel()
                with suppress(asyncio.CancelledError):
                    await going
            summary = await scene.run()
            assert (summary.left, summary.failed) == (0, 0), scene.said
            spent, took = time.process_time() - start, loop.time() - began
            row = scene.judged(crashes=done, took_h=round(took / 3600, 2), cpu_us=round(spent / scene.rows * 1e6))
    row.pop("fill")  # nobody fills it while nothing runs
    row.pop("least")
    return row


async def planning(folder: Path, rows: int) -> Row:
    """Look through an input, put it into the spool and cut it, and do no more."""
    write(folder / "requests.jsonl", rows)
    source, table = Source(str(folder / "requests.jsonl")), make_table(load_settings(tier=TIER))
    billed_input(measure({"messages": [{"role": "user", "content": "what"}]}))  # loads its vocabulary
    before, start = peak_mb(), time.process_time()
    with Journal(folder / "results.jsonl") as journal, Spool(folder, table) as spool:
        backlog = Backlog(spool, table, TIER, created=(), refuse=lambda *_: None, say=lambda _: None, both_routes=False)

        def check(row: Asked) -> tuple[str, float]:
            return row.request().model, 0

        found = await look_through(source, check, journal, Options(), Tally(table))
        taken = take_in(source, spool, journal, found, (), check=check, limit=None, give_up=lambda *_: None)
        for number, places in enumerate(await taken):
            backlog.wait(number, places)
        spent = time.process_time() - start
        pieces = len(backlog.queue(MODEL).waiting)
    memory = {"rss_mb": round(peak_mb(), 1), "bytes_per_row": round((peak_mb() - before) * 2**20 / rows)}
    return {"rows": rows, "batches": pieces, "cpu_us": round(spent / rows * 1e6, 1), **memory}


def cases(*, quick: bool) -> dict[str, Callable[[Path], Awaitable[Row]]]:
    """Return what is measured."""
    rows, planned = (QUICK_ROWS, QUICK_PLANNED) if quick else (ROWS, PLANNED)
    queue = QUEUE // 50 if quick else QUEUE
    found: dict[str, Callable[[Path], Awaitable[Row]]] = {
        "by batch": lambda folder: whole(Scene(folder, rows, queue), None),
        "by both routes": lambda folder: whole(Scene(folder, rows, queue), DEADLINE),
        "killed": lambda folder: crashing(Scene(folder, rows, queue), CRASHES),
    }
    for many in planned:
        found[f"planned, {many:,}"] = partial(planning, rows=many)
    return found


def case(name: str, *, quick: bool) -> Row:
    """Measure one case in a process of its own."""
    command = [sys.executable, "-m", "bench", "batch", "--case", name, *["--quick"] * quick]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    found: Row = json.loads(done.stdout)
    return {"what": name, **found}


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    parser = parser_of("batch", __doc__, "a fiftieth of the rows")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the cases with this in their name")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    every = cases(quick=options.quick)
    if options.case:
        with tempfile.TemporaryDirectory() as folder:
            found = clock.run(_awaited(every[options.case](Path(folder))))
        sys.stdout.write(json.dumps(found | {"rss_mb": round(peak_mb(), 1)}))
        return 0
    before, names = machine(), [name for name in every if options.only in name]
    progress, rows = Progress(len(names)), list[Row]()
    for name in names:
        rows.append(case(name, quick=options.quick))
        progress.say(name)
    planned = [row for row in rows if row["what"].startswith("planned")]
    if len(planned) > 1:
        planned[-1]["growth"] = round(planned[-1]["cpu_us"] / planned[0]["cpu_us"], 2)
    record = Record(
        bench="batch",
        rows=rows,
        targets={name: target for name, target in TARGETS.items() if any(name in row for row in rows)},
        command=" ".join(["python -m bench batch", *arguments]),
        seed=8,
        machine=before,
        versions=versions("aiohttp", "msgspec"),
    )
    return concluded(record, place(options, "batch", partial=bool(options.only)))


async def _awaited(way: Awaitable[Row]) -> Row:
    return await way
