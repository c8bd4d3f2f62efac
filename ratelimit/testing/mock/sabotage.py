"""Replies that go wrong on the wire: written to the connection by hand, since no HTTP library writes them.

After such a reply the connection is closed or reset; a client that would go on reading finds nothing more there.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from ratelimit.testing.mock.faults import Fault
from ratelimit.testing.mock.headers import Rows, lines, rows
from ratelimit.testing.mock.replies import Reply, written

_FOREVER = 1e9
_APART = 0.001  # between what is sent and the reset, which would otherwise overtake it
_LINGER_ZERO = struct.pack("ii", 1, 0)  # closing then sends a reset instead of what is buffered
HTML = b"<html><head><title>Just a moment...</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"

ABSURD: dict[str, Rows] = {
    "negative": [("x-ratelimit-remaining-requests", "-1"), ("retry-after", "-5"), ("x-ratelimit-reset-tokens", "-1")],
    "nan": [("x-ratelimit-remaining-tokens", "NaN"), ("retry-after", "nan"), ("x-ratelimit-limit-requests", "nan")],
    "infinite": [("retry-after", "inf"), ("x-ratelimit-reset-requests", "Infinity")],
    "huge": [
        ("x-ratelimit-limit-requests", "1" + "0" * 30),
        ("retry-after", "315360000"),
        ("retry-after-ms", "1000000000000"),
        ("x-ratelimit-reset-tokens", "1000000000000"),
    ],
    "units": [("x-ratelimit-reset-requests", "1d2h"), ("x-ratelimit-reset-tokens", "5 parsecs")],
    "words": [("retry-after", "soon"), ("x-ratelimit-limit-tokens", "many"), ("x-ratelimit-remaining-tokens", "few")],
    "empty": [
        ("retry-after", ""),
        ("x-ratelimit-limit-requests", ""),
        ("x-ratelimit-remaining-requests", ""),
        ("x-ratelimit-reset-requests", ""),
    ],
    "zero": [("x-ratelimit-limit-requests", "0"), ("x-ratelimit-limit-tokens", "0"), ("retry-after", "0")],
    "twice": [("x-ratelimit-limit-requests", "7"), ("x-ratelimit-limit-requests", "8")],
    "past": [("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")],
    "future": [("retry-after", "Fri, 31 Dec 2099 23:59:59 GMT")],
    "long": [("x-request-id", "x" * 7000)],
    "many": [(f"x-filler-{number}", "x") for number in range(100)],
    "foreign": [("x-ratelimit-limit-tokens", "\u0665\u0660\u0660"), ("x-ratelimit-reset-tokens", "\u0661s")],
}


UNDELIVERED = frozenset({"refuse", "reset", "cut", "stall", "length", "stream_break"})
"""Faults after which the client has no answer, whatever it read."""


def absurd(fault: Fault, number: int) -> Rows:
    """The headers of a `headers` fault: those given, those of a variant, or each variant in its turn."""
    if fault.headers:
        return list(fault.headers.items())
    names = list(ABSURD)
    return ABSURD[fault.variant if fault.variant in ABSURD else names[number % len(names)]]


def replaced(given: Rows, changes: Rows) -> Rows:
    """The rows with others put in place of those of the same name."""
    names = {name.lower() for name, _ in changes}
    return [row for row in given if row[0].lower() not in names] + changes


def reset(request: web.BaseRequest) -> web.StreamResponse:
    """Resets the connection under a request, so that the client sees an error and not an end."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
    return web.Response()


async def _write(request: web.BaseRequest, *pieces: bytes, pause: float = 0) -> None:
    for place, piece in enumerate(pieces):
        if place:
            await asyncio.sleep(pause)
        transport = request.transport
        if transport is None or transport.is_closing():
            return
        transport.write(piece)


def _close(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def _reset(_fault: Fault, request: web.BaseRequest, _reply: Reply) -> web.StreamResponse:
    return reset(request)


async def _cut(fault: Fault, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    kept = len(reply.body) // 2 if fault.bytes is None else fault.bytes
    await _write(request, reply.head(len(reply.body)) + reply.body[:kept])
    await asyncio.sleep(_APART)
    return reset(request)


async def _stall(fault: Fault, request: web.BaseRequest, _reply: Reply) -> web.StreamResponse:
    await asyncio.sleep(_FOREVER if fault.seconds is None else fault.seconds)
    return _close(request)


async def _hang(fault: Fault, _request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    await asyncio.sleep(60 if fault.seconds is None else fault.seconds)
    return reply.whole()


async def _duplicate(fault: Fault, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    await asyncio.sleep(fault.seconds or 0)
    await _write(request, (reply.head(len(reply.body)) + reply.body) * 2)
    return _close(request)


async def _drip(fault: Fault, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    step = fault.bytes or 1
    drops = (reply.body[start : start + step] for start in range(0, len(reply.body), step))
    await _write(request, reply.head(len(reply.body)), *drops, pause=1 if fault.seconds is None else fault.seconds)
    return written()


async def _truncated(fault: Fault, _request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    kept = len(reply.body) // 2 if fault.bytes is None else fault.bytes
    return Reply(reply.status, reply.lines, reply.body[:kept]).whole()


async def _html(_fault: Fault, _request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    html = replaced(rows(reply.lines), [("content-type", "text/html; charset=utf-8")])
    return Reply(200, lines(html), HTML).whole()


async def _length(fault: Fault, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    await _write(request, reply.head(len(reply.body) + (10 if fault.bytes is None else fault.bytes)) + reply.body)
    return _close(request)


async def _headers(fault: Fault, _request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    return reply.with_rows(replaced(rows(reply.lines), absurd(fault, zlib.crc32(reply.body)))).whole()


async def _no_headers(_fault: Fault, _request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    kept = [row for row in rows(reply.lines) if not row[0].lower().startswith(("x-ratelimit", "retry-after"))]
    return reply.with_rows(kept).whole()


async def _bomb(fault: Fault, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    left = 300_000_000 if fault.bytes is None else fault.bytes
    response = web.StreamResponse(headers=replaced(rows(reply.lines), [("content-encoding", "gzip")]))
    await response.prepare(request)
    squeeze = zlib.compressobj(9, wbits=31)
    block = b" " * 1_000_000
    while left > 0:
        await response.write(squeeze.compress(block[:left]) or b"")
        left -= len(block)
        await asyncio.sleep(0)
    await response.write(squeeze.flush())
    await response.write_eof()
    return response


async def _redirect(fault: Fault, _request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    where = fault.headers.get("location", "http://127.0.0.1:1/v1/elsewhere")
    return Reply(307, lines(replaced(rows(reply.lines), [("location", where)])), b"").whole()


_ACTS: dict[str, Callable[[Fault, web.BaseRequest, Reply], Awaitable[web.StreamResponse]]] = {
    "refuse": _reset,
    "reset": _reset,
    "cut": _cut,
    "stall": _stall,
    "hang": _hang,
    "duplicate": _duplicate,
    "drip": _drip,
    "truncated": _truncated,
    "html": _html,
    "length": _length,
    "headers": _headers,
    "no_headers": _no_headers,
    "stream_break": _cut,
    "bomb": _bomb,
    "redirect": _redirect,
}


async def carry_out(fault: Fault, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """Replies to a request as the fault says, given the reply it would have had."""
    return await _ACTS[fault.kind](fault, request, reply)
