"""Requests per second through `client.map`, beside a bare aiohttp loop and the official SDK, at the same concurrency.

One server process answers a constant from a raw protocol, so that the clients are what is measured: zero latency, no
limits. It takes one core, the client under test the other. The three are measured in turn, several times, in one run,
each in a process of its own; rates are wall time, costs the client's processor time. All encode each body and decode
each reply once: the first two with the same library, the SDK with its own.

The SDK is installed into an environment of its own, and left out with a message where that cannot be done.

    python -m bench wire [--quick] [--rounds 5] [--requests 20000] [--sdk-requests 1500]

Ends with 1 below 0.85 of the bare loop's rate, or below 10 times the SDK's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from bench import envs
from bench.record import Progress, Record, Row, concluded, machine, parser_of, place, versions

NAMES = {"bare": "a bare aiohttp loop", "ours": "client.map", "sdk": "the official SDK"}
CONCURRENCY = 100
MODEL = "gpt-4o-mini"
BARE_TARGET, SDK_TARGET = 0.85, 10.0
SDK = "openai"
SDK_ENV = "sdk"  # that of the peers

ANSWER = json.dumps(
    {
        "id": "chatcmpl-0123456789",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 40, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 50, "completion_tokens": 40, "total_tokens": 90},
    }
).encode()
REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_0123456789\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
)

Measured = tuple[float, float]
"""Requests a second, and microseconds of processor time a request."""


def bodies(count: int) -> Iterator[dict[str, Any]]:
    """Requests of some 300 bytes, no two alike."""
    for number in range(count):
        content = f"Question {number}: " + "word " * 30
        yield {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 64}


class Answering(asyncio.Protocol):
    """Answers every request with the same bytes."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            assert self._transport is not None
            self._transport.write(REPLY)


async def serve() -> None:
    """Run the server until killed."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def timed(work: Callable[[], Awaitable[None]], requests: int) -> Measured:
    """Run something that sends so many requests."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return requests / (time.perf_counter() - wall), (time.process_time() - cpu) / requests * 1e6


async def ours(url: str, requests: int) -> Measured:
    """Through `client.map`, with the limits of the largest tier times a thousand."""
    from ratelimit.admission.gate import Gate  # noqa: PLC0415 - the SDK's environment has none of it
    from ratelimit.admission.scheduler import Scheduler  # noqa: PLC0415
    from ratelimit.limits.bucket import DAY, MINUTE, Limit  # noqa: PLC0415
    from ratelimit.limits.tiers import load  # noqa: PLC0415
    from ratelimit.wire.client import Client  # noqa: PLC0415
    from ratelimit.wire.sender import Sender  # noqa: PLC0415
    from ratelimit.wire.transport import Endpoint, Transport  # noqa: PLC0415

    limits = (Limit("requests", 3e7, MINUTE), Limit("tokens", 1.5e11, MINUTE), Limit("requests", 1e10, DAY))
    sender = Sender(Gate(Scheduler(lambda _: limits, concurrency=CONCURRENCY), load().find))
    transport = Transport(Endpoint(url, {"Authorization": "Bearer sk-bench"}))
    async with Client(sender, transport, concurrency=CONCURRENCY) as client:

        async def work() -> None:
            async for result in client.map(bodies(requests)):
                result.unwrap()

        async for result in client.map(bodies(CONCURRENCY)):
            result.unwrap()
        return await timed(work, requests)


async def bare(url: str, requests: int) -> Measured:
    """As many workers around one aiohttp session."""
    import aiohttp  # noqa: PLC0415 - the SDK's environment has none
    import msgspec  # noqa: PLC0415

    headers = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def worker(source: Iterator[dict[str, Any]]) -> None:
            for body in source:
                raw = msgspec.json.encode(body)
                async with session.post(f"{url}/chat/completions", data=raw) as response:
                    assert response.status == 200
                    msgspec.json.decode(await response.read())

        async def work(count: int = requests) -> None:
            source = bodies(count)
            await asyncio.gather(*[worker(source) for _ in range(CONCURRENCY)])

        await work(CONCURRENCY)
        return await timed(work, requests)


async def sdk(url: str, requests: int) -> Measured:
    """The official client, with a semaphore."""
    from openai import AsyncOpenAI  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    async with AsyncOpenAI(api_key="sk-bench", base_url=url, max_retries=0) as client:
        places = asyncio.Semaphore(CONCURRENCY)

        async def one(body: dict[str, Any]) -> None:
            async with places:
                await client.chat.completions.create(**body)

        async def work(count: int = requests) -> None:
            await asyncio.gather(*map(one, bodies(count)))

        await work(CONCURRENCY)
        return await timed(work, requests)


CLIENTS: dict[str, Callable[[str, int], Awaitable[Measured]]] = {"ours": ours, "bare": bare, "sdk": sdk}


def sdk_python() -> Path | None:
    """The interpreter of an environment with the SDK in it; None where there can be none."""
    try:
        return envs.python_of(SDK_ENV, (SDK,))
    except envs.CannotInstall as why:
        print(f"the SDK is left out: {why}", file=sys.stderr)
        return None


def run(python: Path, *arguments: object) -> Any:
    """Run this module in a process of its own and read what it prints."""
    command = [str(python), "-m", "bench.wire", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=envs.ROOT).stdout)


def measure(rounds: int, requests: int, sdk_requests: int) -> tuple[list[Row], dict[str, str]]:
    """All clients in turn, each beside the others of its round; and the version of the SDK, if there is one."""
    pythons = {"bare": Path(sys.executable), "ours": Path(sys.executable)}
    if theirs := sdk_python():
        pythons["sdk"] = theirs
    found: dict[str, list[Measured]] = {name: [] for name in pythons}
    command = [sys.executable, "-m", "bench.wire", "--serve"]
    server, progress = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=envs.ROOT), Progress(rounds)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        for number in range(rounds):
            for name, python in pythons.items():
                count = sdk_requests if name == "sdk" else requests
                found[name].append(tuple(run(python, "--client", name, "--url", url, "--requests", count)))
            progress.say(
                f"round {number + 1}: " + ", ".join(f"{name} {runs[-1][0]:,.0f}" for name, runs in found.items())
            )
    finally:
        server.kill()
        server.wait()
    return rows_of(found), envs.versions_of(theirs, (SDK,)) if theirs else {}


def rows_of(found: dict[str, list[Measured]]) -> list[Row]:
    """The medians of each client, and ours beside the others, round by round, for the machine does other things too."""
    rows: dict[str, Row] = {
        name: {
            "what": NAMES[name],
            "per_second": round(statistics.median(rate for rate, _ in runs)),
            "lowest": round(min(rate for rate, _ in runs)),
            "highest": round(max(rate for rate, _ in runs)),
            "cpu_us": round(statistics.median(cost for _, cost in runs), 1),
        }
        for name, runs in found.items()
    }
    for name, other in (("to_bare", "bare"), ("to_sdk", "sdk")):
        if other in found:
            pairs = list(zip(found["ours"], found[other], strict=True))
            rows["ours"][name] = round(statistics.median(mine[0] / theirs[0] for mine, theirs in pairs), 3)
    rows["ours"]["cpu_us_more"] = round(rows["ours"]["cpu_us"] - rows["bare"]["cpu_us"], 1)
    return list(rows.values())


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    parser = parser_of("wire", __doc__, "two short rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--sdk-requests", type=int, default=1_500)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        asyncio.run(serve())
        return 0
    if given.client:

        async def one() -> Measured:
            return await CLIENTS[given.client](given.url, given.requests)

        print(json.dumps(asyncio.run(one())))
        return 0
    before = machine()
    sizes = (2, 5_000, 300) if given.quick else (given.rounds, given.requests, given.sdk_requests)
    rows, sdk_version = measure(*sizes)
    record = Record(
        bench="wire",
        rows=rows,
        targets={"to_bare": f">= {BARE_TARGET:g}", "to_sdk": f">= {SDK_TARGET:g}"},
        command=" ".join(["python -m bench wire", *arguments]),
        notes=[f"chat completions, {CONCURRENCY} in flight, zero latency, no limits; medians of {sizes[0]} rounds"],
        machine=before,
        versions=versions("aiohttp") | sdk_version,
    )
    return concluded(record, place(given, "wire"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
