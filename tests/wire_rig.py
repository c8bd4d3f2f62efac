"""A client on the mock or on a server of raw bytes, and a look at the buckets behind it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any, Self

from ratelimit.admission.gate import Gate, Settling
from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.charge import Formula
from ratelimit.limits.tiers import load
from ratelimit.wire.client import Client
from ratelimit.wire.retry import Policy
from ratelimit.wire.sender import Sender
from ratelimit.wire.transport import Bounds, Endpoint, Transport

KEY = "sk-secret-0123456789"
BEARER = {"Authorization": f"Bearer {KEY}"}
MODEL = "gpt-4o-mini"
WIDE = (Limit("requests", 6_000_000, MINUTE), Limit("tokens", 600_000_000, MINUTE))
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello there"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
STREAM = (
    b'data: {"choices":[{"delta":{"content":"hello "}}],"usage":null}\n\n'
    b'data: {"choices":[{"delta":{"content":"there"}}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":20}}\n\n'
    b"data: [DONE]\n\n"
)


def ask(text: str = "hi", **options: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **options}


def make(
    base_url: str,
    *,
    limits: tuple[Limit, ...] | str = WIDE,
    concurrency: int = 100,
    policy: Policy | None = None,
    bounds: Bounds | None = None,
    formula: Formula | None = None,
    charges: Settling = "headers",
    headers: Mapping[str, str] = BEARER,
    query: Mapping[str, str] | None = None,
    deployments: bool = False,
) -> Client:
    """A client for one endpoint; `limits` are the same for every model, or those of a tier."""
    table = load()

    def of(name: str) -> tuple[Limit, ...]:
        return table.limits(name, limits) if isinstance(limits, str) else limits

    gate = Gate(Scheduler(of, concurrency=concurrency), table.find, formula=formula, charges=charges)
    endpoint = Endpoint(base_url, headers, query or {}, deployments=deployments)
    return Client(Sender(gate, policy), Transport(endpoint, bounds, connections=concurrency), concurrency=concurrency)


def missing(client: Client) -> dict[str, float]:
    """What is missing from each bucket of the one lane there is, when all requests have ended."""
    (lane,) = client.sender.gate.scheduler._lanes.values()
    assert lane.in_flight == 0
    return {unit: round(amount, 1) for unit, amount in lane.ledger.missing().items()}


def reply(body: object = CHAT, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole reply as bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    rows = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **(headers or {})}
    return f"HTTP/1.1 {status} Whatever\r\n".encode() + head(rows) + raw


def head(rows: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in rows.items()).encode() + b"\r\n"


Act = Callable[["Raw", asyncio.StreamWriter], Awaitable[bool | None]]


class Raw:
    """A server that answers each request with the next act; the last one goes on for ever.

    An act is bytes to write, or a coroutine that may do anything; one that returns False closes the connection.
    """

    def __init__(self, *acts: bytes | Act, tls: SSLContext | None = None) -> None:
        self._acts = list(acts)
        self._tls = tls
        self._open: set[asyncio.StreamWriter] = set()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.in_flight = self.most_in_flight = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, backlog=10_000)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while (asked := await _read(reader)) is not None:
                self.requests.append(asked)
                act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    if isinstance(act, bytes):
                        writer.write(act)
                    elif await act(self, writer) is False:
                        break
                finally:
                    self.in_flight -= 1
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes] | None:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
        rows = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return first, rows, await reader.readexactly(int(rows.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


@asynccontextmanager
async def served(*acts: bytes | Act, **options: Any) -> AsyncIterator[tuple[Raw, Client]]:
    """A raw server and a client of it."""
    async with Raw(*acts) as server, make(server.url, **options) as client:
        yield server, client


def then_close(*pieces: bytes, pause: float = 0) -> Act:
    """An act that writes pieces and closes."""

    async def act(_server: Raw, writer: asyncio.StreamWriter) -> bool:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)
        return False

    return act


def then_reset(*pieces: bytes) -> Act:
    """An act that writes pieces and resets the connection."""

    async def act(_server: Raw, writer: asyncio.StreamWriter) -> bool:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        # Closing then sends a reset instead of an end.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False

    return act


def after(seconds: float, raw: bytes) -> Act:
    """An act that answers late."""

    async def act(_server: Raw, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(raw)

    return act
