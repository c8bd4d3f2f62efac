"""An hour of the whole client at a large tier, and a mock server that fails now and then: nothing may grow or be lost.

Memory and tasks are looked at every few seconds. What they are in the last quarter of the run is compared with what
they were in the second: the first belongs to warming up.

    python -m bench soak [--quick] [--seconds 3600] [--tier tier-5]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ratelimit
from bench.record import Progress, Record, concluded, machine, parser_of, place, versions
from bench.server import Mock, serving

MODEL = "gpt-4o-mini"
FAULTS = ("500:rate=0.005", "overloaded:rate=0.002,retry_after=1", "reset:rate=0.002", "truncated:rate=0.002")
MOST_GROWTH = 1.05
_LOOKS = 40


def memory_mb() -> float:
    """Return the memory this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


class Looks:
    """What was seen, look by look."""

    def __init__(self) -> None:
        self.memory: list[float] = []
        self.tasks: list[int] = []

    async def watch(self, seconds: float) -> None:
        """Look every so often, and say so."""
        progress = Progress(_LOOKS)
        for _ in range(_LOOKS):
            await asyncio.sleep(seconds / _LOOKS)
            self.memory.append(memory_mb())
            self.tasks.append(len(asyncio.all_tasks()))
            progress.say(f"{self.memory[-1]:.1f} MB, {self.tasks[-1]} tasks")

    @staticmethod
    def growth(seen: list[float] | list[int]) -> float:
        """Return the last quarter over the second."""
        part = len(seen) // 4
        return statistics.mean(seen[-part:]) / statistics.mean(seen[part : 2 * part])


async def soak(mock: Mock, tier: str, seconds: float) -> dict[str, Any]:
    """Send for so long, then let what is under way be answered."""
    loop, looks, sent, answered, lost = asyncio.get_running_loop(), Looks(), 0, 0, dict[str, int]()
    end = loop.time() + seconds

    def bodies() -> Iterator[dict[str, Any]]:
        nonlocal sent
        while loop.time() < end:
            sent += 1
            yield {"model": MODEL, "messages": [{"role": "user", "content": f"question {sent}"}], "max_tokens": 16}

    watching = asyncio.create_task(looks.watch(seconds))
    started = time.process_time()
    async with ratelimit.open(base_url=mock.base_url, api_key="sk-bench", tier=tier) as client:
        async for result in client.map(bodies()):
            if result.error is None:
                answered += 1
            else:
                name = type(result.error).__name__
                lost[name] = lost.get(name, 0) + 1
    spent = time.process_time() - started
    await watching
    return {
        "seconds": seconds,
        "tier": tier,
        "sent": sent,
        "answered": answered,
        "lost": sent - answered,
        "errors": lost,
        "memory_mb": round(looks.memory[-1], 1),
        "memory_growth": round(looks.growth(looks.memory), 4),
        "tasks_growth": round(looks.growth(looks.tasks), 4),
        "tasks_left": len(asyncio.all_tasks()) - 1,
        "cpu_us": round(spent / max(answered, 1) * 1e6),
    }


def main(arguments: list[str]) -> int:
    """Soak, print, keep, and judge."""
    parser = parser_of("soak", __doc__, "two minutes")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--tier", default="tier-5")
    options = parser.parse_args(arguments)
    seconds = 120.0 if options.quick else options.seconds
    faults = [part for fault in FAULTS for part in ("--fault", fault)]
    with serving(["--tier", options.tier, "--model", MODEL, "--latency", "lognormal:0.4,0.6", *faults]) as mock:
        found = asyncio.run(soak(mock, options.tier, seconds))
        stats = mock.stats()
    found["refused"] = sum(stats["refused"].values())
    found["faults"] = sum(stats["faults"].values())
    record = Record(
        bench="soak",
        rows=[found],
        targets={
            "memory_growth": f"<= {MOST_GROWTH:g}",
            "tasks_growth": f"<= {MOST_GROWTH:g}",
            "lost": "<= 0",
            "tasks_left": "<= 0",
        },
        command=f"python -m bench soak --seconds {seconds:g} --tier {options.tier}",
        machine=machine(),
        versions=versions("aiohttp", "aiolimiter"),
    )
    return concluded(record, place(options, "soak"))
