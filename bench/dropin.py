"""What the drop-in costs: the official SDK bare and limited, in turns, against one server on this machine.

Run it with an environment that has the SDK, such as `.venv-sdk3/bin/python bench/dropin.py` after `make sdk-envs`. The
server runs in a process of its own, answers at once and limits nothing, and the client's limits are out of reach: what
is left is the work of being limited. Rounds alternate, so that what else the machine does falls on both; the medians
are compared. Exit code 1: more than a tenth of the SDK's own CPU time or throughput.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ratelimit.limits.tiers import Model, Table, TierLimits
from ratelimit.openai import rate_limited
from ratelimit.testing.mock import Limits, MockServer

MODEL = "gpt-4o-mini"
BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You answer in one sentence, and say so if you do not know."},
        {"role": "user", "content": "How much does it cost to ask? " * 20},
    ],
    "temperature": 0.2,
    "max_tokens": 200,
}
PLENTY = 1_000_000_000
MOST = 0.10
RESULTS = Path(__file__).parent / "results" / "dropin.json"


async def serve() -> None:
    async with MockServer(models={MODEL: Limits(rpm=PLENTY, tpm=PLENTY)}, output_tokens=100) as mock:
        print(mock.base_url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def one_round(client: Any, requests: int, concurrency: int) -> tuple[float, float]:
    """Requests per second and CPU microseconds a request."""
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            await client.chat.completions.create(**BODY)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return requests / wall, cpu / requests * 1e6


async def measure(base_url: str, rounds: int, requests: int, concurrency: int) -> dict[str, list[tuple[float, float]]]:
    openai: Any = importlib.import_module("openai")
    limits = Table({MODEL: Model(MODEL, tiers={"tier-1": TierLimits(PLENTY, None, PLENTY)})})
    async with (
        openai.AsyncOpenAI(base_url=base_url, api_key="sk-bench") as bare,
        openai.AsyncOpenAI(base_url=base_url, api_key="sk-bench") as second,
    ):
        clients = {"sdk": bare, "drop-in": rate_limited(second, table=limits)}
        for client in clients.values():
            await one_round(client, requests, concurrency)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        for number in range(rounds):
            for name in sorted(clients, reverse=number % 2 == 0):
                found[name].append(await one_round(clients[name], requests, concurrency))
        return found


def report(found: dict[str, list[tuple[float, float]]], options: argparse.Namespace) -> bool:
    openai: Any = importlib.import_module("openai")
    rows = {
        name: {
            "requests_per_second": round(statistics.median(rate for rate, _ in rounds)),
            "cpu_us_per_request": round(statistics.median(cpu for _, cpu in rounds)),
        }
        for name, rounds in found.items()
    }
    pairs = list(zip(found["sdk"], found["drop-in"], strict=True))
    cpu = statistics.median(ours[1] / theirs[1] for theirs, ours in pairs) - 1
    throughput = 1 - statistics.median(ours[0] / theirs[0] for theirs, ours in pairs)
    reached = cpu <= MOST and throughput <= MOST
    result = {
        "openai": openai.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "rounds": options.rounds,
        "requests_per_round": options.requests,
        "concurrency": options.concurrency,
        "medians": rows,
        "more_cpu": round(cpu, 4),
        "less_throughput": round(throughput, 4),
        "target": f"at most {MOST:.0%} of either",
        "reached": reached,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, row in rows.items():
        print(f"{name:8} {row['requests_per_second']:6,} requests/s {row['cpu_us_per_request']:6,} us CPU each")
    print(
        f"drop-in: {cpu:+.1%} CPU, {-throughput:+.1%} throughput; "
        f"at most {MOST:.0%} of either: {'reached' if reached else 'missed'}"
    )
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return 0
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().strip()
        found = asyncio.run(measure(base_url, options.rounds, options.requests, options.concurrency))
        server.communicate()
    return 0 if report(found, options) else 1


if __name__ == "__main__":
    raise SystemExit(main())
