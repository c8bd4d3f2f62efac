"""The mock server's own ceiling: chat completions a second, as a ratio to a bare aiohttp handler answering a constant.

Every server runs in a process of its own; the load comes from this process over kept-alive connections, written to
the socket by hand so that the client is not what is measured. The servers are measured in turn, several times, in one
run, and the medians compared. The constant has the size of the mock's answer and as many headers.

What is compared is requests per second *of a core*, from the processor time each server has used: it is what the
clock shows on an idle machine, and does not change when others share the cores. The clock's figure stands beside it.

    python -m bench mock_ceiling [--quick] [--rounds 5] [--seconds 2] [--connections 64]

Ends with 1 below a ratio of 0.7 to an application with one route. A server with no router at
all, aiohttp's barest, is shown too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.record import Progress, Record, Row, concluded, machine, parser_of, place, versions
from ratelimit.testing.mock import Limits, MockServer

TARGET = 0.7
NAMES = {"mock": "the mock", "handler": "aiohttp without a router", "application": "aiohttp with one route"}
MANY = 10_000_000


def request_bytes(port: int, size: int = 300) -> bytes:
    """One chat completion whose body is `size` bytes."""
    body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": ""}], "max_tokens": 64}
    body["messages"][0]["content"] = "x" * (size - len(json.dumps(body)))
    raw = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer sk-bench\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


class Connection(asyncio.Protocol):
    """Sends the same request again as soon as it is answered."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answered = 0
        self.size = 0
        self.headers: list[bytes] = []
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = buffer
            return
        lower = buffer[:end].lower()
        length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(buffer) < end + 4 + length:
            self._buffer = buffer
            return
        assert buffer.startswith(b"HTTP/1.1 200"), buffer[:2000]
        self._buffer = b""
        self.answered += 1
        self.size = length
        self.headers = buffer[:end].split(b"\r\n")[1:]
        assert self._transport is not None
        self._transport.write(self.request)

    def close(self) -> None:
        """Ends the connection."""
        assert self._transport is not None
        self._transport.abort()


@dataclass(frozen=True)
class Server:
    """This file, run as a server in a process of its own."""

    process: subprocess.Popen[str]
    port: int


def cpu_seconds(pid: int) -> float:
    """What a process has used of a core so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """What one server did under load."""

    per_second: float
    cpu_us: float
    busy: float
    size: int
    headers: int


async def load(server: Server, seconds: float, connections: int) -> Measured:
    """Loads a server for a while and says how fast it answered and what that cost it."""
    port, pid = server.port, server.process.pid
    loop = asyncio.get_running_loop()
    request = request_bytes(port)
    made = [
        (await loop.create_connection(lambda: Connection(request), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(0.3)
    before, begun, used = sum(each.answered for each in made), time.perf_counter(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    answered, took = sum(each.answered for each in made) - before, time.perf_counter() - begun
    used = cpu_seconds(pid) - used
    for each in made:
        each.close()
    last = made[0]
    return Measured(answered / took, used / answered * 1e6, used / took, last.size, len(last.headers))


async def serve_mock() -> None:
    """Runs the mock until killed, its limits out of the way."""
    limits = Limits(rpm=MANY, rpd=MANY * 1000, tpm=MANY * 1000)
    async with MockServer(models={"gpt-4o-mini": limits}) as mock:
        print(mock.root_url.rsplit(":", 1)[1], flush=True)
        await asyncio.Event().wait()


async def serve_bare(kind: str, size: int, headers: int) -> None:
    """Runs an aiohttp server that reads the body and answers a constant: an application's route, or a handler alone."""
    constant = b"x" * size
    rows = {"content-type": "application/json", **{f"x-header-{n:012}": "0123456789" for n in range(headers - 4)}}

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=constant, headers=rows)

    runner: web.BaseRunner
    if kind == "handler":
        runner = web.ServerRunner(web.Server(answer, access_log=None))
    else:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def start(*arguments: str) -> Server:
    """Starts a server and reads its port."""
    process = subprocess.Popen(  # the command is this very file
        [sys.executable, "-m", "bench.mock_ceiling", "--serve", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    return Server(process, int(process.stdout.readline()))


def measure(rounds: int, seconds: float, connections: int) -> list[Row]:
    """All servers in turn."""
    servers = {"mock": start("mock")}
    try:
        first = asyncio.run(load(servers["mock"], 0.2, 4))
        for name in ("handler", "application"):
            servers[name] = start(name, str(first.size), str(first.headers))
        found: dict[str, list[Measured]] = {name: [] for name in servers}
        progress = Progress(rounds * len(servers))
        for _ in range(rounds):
            for name, server in servers.items():
                found[name].append(asyncio.run(load(server, seconds, connections)))
                progress.say(f"{name}: {found[name][-1].per_second:,.0f} a second")
    finally:
        for server in servers.values():
            server.process.kill()
            server.process.wait()
    return rows_of(found)


def rows_of(found: dict[str, list[Measured]]) -> list[Row]:
    """The medians of each server, and the mock beside the others."""
    rows: dict[str, Row] = {
        name: {
            "what": NAMES[name],
            "per_second": round(statistics.median(each.per_second for each in runs)),
            "cpu_us": round(cost := statistics.median(each.cpu_us for each in runs), 1),
            "per_core_second": round(1e6 / cost),
            "answer_bytes": runs[0].size,
            "answer_headers": runs[0].headers,
        }
        for name, runs in found.items()
    }
    mine = rows["mock"]
    mine["to_application"] = round(rows["application"]["cpu_us"] / mine["cpu_us"], 3)
    mine["to_handler"] = round(rows["handler"]["cpu_us"] / mine["cpu_us"], 3)
    return list(rows.values())


def main(arguments: list[str]) -> int:
    """Measure, print, keep, and judge."""
    parser = parser_of("mock_ceiling", __doc__, "two short rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        kind, *sizes = given.serve
        asyncio.run(serve_mock() if kind == "mock" else serve_bare(kind, int(sizes[0]), int(sizes[1])))
        return 0
    before = machine()
    rounds, seconds = (2, 0.5) if given.quick else (given.rounds, given.seconds)
    record = Record(
        bench="mock_ceiling",
        rows=measure(rounds, seconds, given.connections),
        targets={"to_application": f">= {TARGET:g}"},
        command=" ".join(["python -m bench mock_ceiling", *arguments]),
        notes=[f"medians of {rounds} rounds of {seconds:g} s, {given.connections} connections"],
        machine=before,
        versions=versions("aiohttp"),
    )
    return concluded(record, place(given, "mock_ceiling"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
