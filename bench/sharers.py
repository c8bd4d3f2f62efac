"""The programs that the bench of shared limits runs, each a process of its own.

`flood` sends all it may until it is told to end, `sip` a request a second; `admit` sends nothing, and has so many
admissions a second of a lane that is far from its limits.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import ratelimit
from ratelimit.compose import make_scheduler, make_table
from ratelimit.settings import load_settings

MODEL = "gpt-4o-mini"
ADMISSIONS = 500  # a second
_WINDOW = 400  # requests under way, so many that the limit is what is short
_WARMING = 1.0
_PATIENCE = 20.0


class Sharer:
    """One of them, as whoever started it sees it."""

    def __init__(self, what: str, environment: Mapping[str, str], *given: object) -> None:
        command = [sys.executable, "-m", "bench", "shared", "--program", what, *map(str, given)]
        self._process = subprocess.Popen(
            command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )

    def connected(self) -> None:
        """Wait until it has had its first answer."""
        assert self._process.stdout
        if self._process.stdout.readline() != "connected\n":
            raise RuntimeError("a program of the bench ended before its first answer")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ends(self) -> dict[str, Any]:
        """Wait for it to end, and return what it has to say; nothing if it was killed."""
        out, _ = self._process.communicate(timeout=_PATIENCE)
        return json.loads(out) if out else {}

    def abandon(self) -> None:
        """See that it is gone."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


async def send(words: int, pause: float) -> dict[str, Any]:
    """Send until SIGTERM, with a pause after each; returns how many answers there were in each tenth of a second."""
    loop, answers = asyncio.get_running_loop(), Counter[int]()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "word " * words}], "max_tokens": 16}

    async def bodies() -> AsyncIterator[dict[str, Any]]:
        while not ended.is_set():
            yield body
            await asyncio.sleep(pause)

    async def flood(client: ratelimit.Client) -> None:
        async for result in client.map(bodies(), window=_WINDOW):
            if not answers:
                say("connected")
            answers[int(time.monotonic() * 10)] += result.error is None

    async with ratelimit.open() as client:
        flooding = asyncio.create_task(flood(client))
        await asyncio.wait({flooding, asyncio.create_task(ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
        flooding.cancel()
    return {"answers": answers}


async def admit(seconds: float) -> dict[str, float]:
    """Return the processor time of an admission, and how long the slowest of a hundred waited for theirs."""
    settings, rng, loop = load_settings(), random.Random(1), asyncio.get_running_loop()
    scheduler, waits = make_scheduler(settings, make_table(settings)), list[float]()

    async def one() -> None:
        asked = loop.time()
        async with scheduler.reserve(MODEL, tokens=800) as turn:
            waits.append(loop.time() - asked)
            await asyncio.sleep(0.05)
            turn.used()

    async def arrive(many: float) -> None:
        due = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(int(many)):
                due += rng.expovariate(ADMISSIONS)
                await asyncio.sleep(due - loop.time())
                tasks.create_task(one())

    await one()  # a lane's first goes alone
    await arrive(_WARMING * ADMISSIONS)
    waits.clear()
    start = time.process_time()
    await arrive(seconds * ADMISSIONS)
    spent = time.process_time() - start
    await scheduler.aclose()
    return {"cpu_us": spent / len(waits) * 1e6, "wait_p99_ms": sorted(waits)[len(waits) * 99 // 100] * 1000}


def say(text: str) -> None:
    """Tell whoever started this process."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def program(what: str, given: list[str]) -> int:
    """Be one of them."""
    if what == "admit":
        found: Any = asyncio.run(admit(float(given[0])))
    else:
        found = asyncio.run(send(int(given[0]), 1.0 if what == "sip" else 0.0))
    say(json.dumps(found))
    return 0
