"""A few cells in real time: the whole client over loopback sockets, the mock server in a process of its own.

Seventy seconds each. The opening burst is over after the first forty where the machine is fast enough for it; what is
judged is the rate from there to the end, as the mock has counted it, second by second. A rate above the cap says that
the bucket, full at the start, was not empty yet; so what was admitted from the very start stands beside it, as a part
of what a full bucket and continuous refill could have passed. A machine that others use too loses time that no client
can make up; the record has the load average.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ratelimit
from bench.record import Progress, Record, machine, versions
from bench.server import Mock, serving
from ratelimit.limits.tiers import load

LEAST = 0.98
SECONDS = 70.0
OPENING = 40.0
_LATENCY = "lognormal:0.4,0.6"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell, and the words of its requests: few for a limit on requests, many for one on tokens."""

    name: str
    model: str
    tier: str
    bound: str
    words: tuple[int, ...]


CELLS = (
    Cell("Tier 1, by requests", "gpt-4o-mini", "tier-1", "RPM", (10,)),
    Cell("Tier 1, by tokens", "gpt-4o-mini", "tier-1", "TPM", (300, 400, 600, 900)),
    Cell("Tier 2, by requests", "gpt-4o-mini", "tier-2", "RPM", (10,)),
    Cell("Tier 5, by requests", "gpt-4o-mini", "tier-5", "RPM", (10,)),
)


def bodies(cell: Cell) -> Iterator[dict[str, Any]]:
    """Requests without end."""
    texts = ["word " * each for each in cell.words]
    number = 0
    while True:
        text = texts[number % len(texts)]
        yield {"model": cell.model, "messages": [{"role": "user", "content": text}], "max_tokens": 16}
        number += 1


async def flood(cell: Cell, mock: Mock, seconds: float) -> tuple[int, float]:
    """Send for so long; returns how many were answered, and the processor time it took."""
    answered, started = 0, time.process_time()
    client = ratelimit.open(base_url=mock.base_url, api_key="sk-bench", tier=cell.tier, concurrency=2000)
    async with client:
        try:
            async with asyncio.timeout(seconds):
                async for result in client.map(bodies(cell)):
                    result.unwrap()
                    answered += 1
        except TimeoutError:
            pass
    return answered, time.process_time() - started


def play(cell: Cell, seconds: float, opening: float) -> dict[str, Any]:
    """Return how one cell went."""
    options = ["--tier", cell.tier, "--model", cell.model, "--latency", _LATENCY, "--output-tokens", "16"]
    before = machine()["load_average"]
    with serving(options) as mock:
        answered, spent = asyncio.run(flood(cell, mock, seconds))
        stats = mock.stats()
    unit = "tokens" if cell.bound == "TPM" else "admitted"
    on = load().on(cell.model, cell.tier)
    cap = (on.tpm if cell.bound == "TPM" else on.rpm) or 0
    end = seconds - 1
    achieved = sum(each[unit] for each in stats["timeline"] if opening <= each["second"] < end) / (end - opening) * 60
    total = sum(each[unit] for each in stats["timeline"] if each["second"] < end)
    refused = sum(stats["refused"].values())
    return {
        "cell": cell.name,
        "model": cell.model,
        "tier": cell.tier,
        "bound": cell.bound,
        "cap": cap,
        "achieved": round(achieved, 1),
        "utilisation": round(achieved / cap, 4),
        "of_bound": round(total / (cap * (1 + end / 60)), 4),
        "answered": answered,
        "refused": refused,
        "cpu_us": round(spent / max(answered, 1) * 1e6),
        "load_before": before[0],
        "load_after": machine()["load_average"][0],
    }


def measure(options: argparse.Namespace, command: str) -> Record:
    """Play the selection one after another."""
    seconds, opening = (50.0, 40.0) if options.quick else (SECONDS, OPENING)
    chosen = [cell for cell in CELLS if not options.tier or cell.tier in options.tier]
    progress, rows = Progress(len(chosen)), []
    for cell in chosen:
        rows.append(play(cell, seconds, opening))
        progress.say(cell.name)
    return Record(
        bench="caps-real",
        rows=rows,
        targets={"utilisation": f">= {LEAST:g}", "refused": "<= 0"},
        command=command,
        seed=options.seed,
        machine=machine(),
        versions=versions("aiohttp", "aiolimiter"),
    )
