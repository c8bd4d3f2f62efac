"""What the drop-in costs: the official SDK bare and limited, in turns, against one server on this machine.

The server runs in a process of its own, answers at once and limits nothing, and the client's limits are out of reach:
what is left is the work of being limited. Rounds alternate, so that what else the machine does falls on both; each is
compared with the other of its round. The SDK lives in an environment of its own, made on first use.

    python -m bench dropin [--quick] [--rounds 21]

Ends with 1 above a tenth of the SDK's own processor time or throughput.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import Any

from bench import envs
from bench.record import Progress, Record, Row, concluded, machine, parser_of, place, versions
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
BARE, OURS = "the SDK", "the SDK with the drop-in"


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
        clients = {BARE: bare, OURS: rate_limited(second, table=limits)}
        for client in clients.values():
            await one_round(client, requests, concurrency)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        progress = Progress(rounds)
        for number in range(rounds):
            for name in sorted(clients, reverse=number % 2 == 0):
                found[name].append(await one_round(clients[name], requests, concurrency))
            progress.say(f"{found[OURS][-1][1] / found[BARE][-1][1]:.3f} of the SDK's processor time")
        return found


def rows_of(found: dict[str, list[tuple[float, float]]]) -> list[Row]:
    """The medians of each, and what the drop-in costs beside the SDK of the same round."""
    rows: list[Row] = [
        {
            "what": name,
            "per_second": round(statistics.median(rate for rate, _ in rounds)),
            "cpu_us": round(statistics.median(cpu for _, cpu in rounds)),
        }
        for name, rounds in found.items()
    ]
    pairs = list(zip(found[BARE], found[OURS], strict=True))
    cpu = statistics.median(ours[1] / theirs[1] for theirs, ours in pairs) - 1
    throughput = 1 - statistics.median(ours[0] / theirs[0] for theirs, ours in pairs)
    rows[-1] |= {"more_cpu": round(cpu, 4), "less_throughput": round(throughput, 4)}
    return rows


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    parser = parser_of("dropin", __doc__, "five rounds")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        asyncio.run(serve())
        return 0
    if find_spec("openai") is None:  # where we are developed there is no SDK: on with one that has both
        try:
            python = envs.python_of("dropin", ("openai[aiohttp]", "-e", str(envs.ROOT)))
        except envs.CannotInstall as why:
            sys.stderr.write(f"the drop-in is not measured, for there is no SDK: {why}\n")
            return 1
        return subprocess.run([str(python), "-m", "bench", "dropin", *arguments], check=False, cwd=envs.ROOT).returncode
    before, rounds = machine(), 5 if options.quick else options.rounds
    serving = [sys.executable, "-c", "import sys; from bench.dropin import main; main(sys.argv[1:])", "--serve"]
    with subprocess.Popen(serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=envs.ROOT) as server:
        assert server.stdout is not None
        base_url = server.stdout.readline().strip()
        found = asyncio.run(measure(base_url, rounds, options.requests, options.concurrency))
        server.communicate()
    record = Record(
        bench="dropin",
        rows=rows_of(found),
        targets={"more_cpu": f"<= {MOST:g}", "less_throughput": f"<= {MOST:g}"},
        command=" ".join(["python -m bench dropin", *arguments]),
        notes=[f"medians of {rounds} rounds of {options.requests} requests, {options.concurrency} in flight"],
        machine=before,
        versions=versions("openai", "aiohttp"),
    )
    return concluded(record, place(options, "dropin"))
