"""What every client is given, and what it says afterwards.

Time and processor time begin when the job has been read, the peer has been imported and everybody else who runs beside
it is as far, and end with the last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """The requests, where they go, what the limits are, and which have been answered."""

    bodies: list[dict[str, Any]]
    base_url: str
    rpm: int
    tpm: int
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    last: float = 0.0

    def done(self) -> None:
        """Count an answer."""
        self.answered += 1
        self.last = time.monotonic()

    def failed(self, error: object) -> None:
        """Count a request that was given up."""
        name = error if isinstance(error, str) else type(error).__name__
        self.errors[name[:80]] = self.errors.get(name[:80], 0) + 1
        self.last = time.monotonic()


def tokens(body: dict[str, Any]) -> int:
    """Return a prompt's tokens as the mock counts text: four bytes each, and a few for the framing."""
    return sum(len(message["content"]) // 4 + 1 for message in body["messages"]) + 3


def play(run: Callable[[Job], Awaitable[None]], *imports: str) -> None:
    """Read the job, wait for the sign, run until it ends or its time is up, and print what became of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--rpm", type=int, required=True)
    parser.add_argument("--tpm", type=int, required=True)
    parser.add_argument("--deadline", type=float, required=True)
    given = parser.parse_args()
    with given.job.open(encoding="utf-8") as lines:
        bodies = [json.loads(line) for line in lines]
    for name in imports:
        import_module(name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    job = Job(bodies, given.base_url, given.rpm, given.tpm)
    asyncio.run(_timed(run, job, given.deadline))


async def _timed(run: Callable[[Job], Awaitable[None]], job: Job, deadline: float) -> None:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    task = asyncio.ensure_future(run(job))
    finished, _ = await asyncio.wait([task], timeout=deadline)
    end, after = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    crash = repr(task.exception())[:200] if finished and task.exception() else None
    report = {
        "answered": job.answered,
        "errors": job.errors,
        "in_time": bool(finished),
        "crash": crash,
        "wall": (job.last or end) - start if finished else deadline,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "rss_mb": after.ru_maxrss / 1024,
    }
    # Libraries print to standard output as they like; the report is the last line of it.
    sys.stdout.write("\n" + json.dumps(report) + "\n")
    sys.stdout.flush()
    if not finished:
        task.cancel()
        with suppress(asyncio.CancelledError, asyncio.TimeoutError):
            await asyncio.wait_for(task, 5)
