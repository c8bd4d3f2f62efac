"""A few pages on loopback, for whoever is at this machine and nobody else.

A browser will ask loopback in the name of any site that has had its own name point here. So only a `Host` that is this
machine's is answered; and since every page says what it may load, text that got into one could do nothing there.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from ratelimit.errors import PortTaken

_LOOPBACK: Final = "127.0.0.1"
_OURS: Final = frozenset((_LOOPBACK, "localhost"))
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_LEAVING: Final = 2.0  # seconds in which whoever still reads may take the rest


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered; `policy` is what it may load besides nothing."""

    content_type: str
    text: str
    policy: str = ""


Pages = Mapping[str, Callable[[], Page]]
"""By path, what makes the page when it is asked for."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Streams = Mapping[str, Callable[[], AsyncIterator[str]]]
"""By path, what makes the events of one listener, each a line of text."""


def bind(port: int) -> socket.socket:
    """Take a port on loopback, 0 for any that is free; raises `PortTaken`."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((_LOOPBACK, port))
        taken.listen()
    except OSError as error:
        taken.close()
        raise PortTaken(port, error.strerror or str(error)) from None
    return taken


def address(taken: socket.socket) -> str:
    """Return what to open in a browser."""
    return f"http://{_LOOPBACK}:{taken.getsockname()[1]}/"


@asynccontextmanager
async def served(taken: socket.socket, pages: Pages, streams: Streams | None = None) -> AsyncIterator[None]:
    """Answer on a port for as long as the context is open; streams are to end by themselves, soon after."""
    app = web.Application(middlewares=[_guard])
    app.add_routes([web.get(path, _answering(make)) for path, make in pages.items()])
    app.add_routes([web.get(path, _telling(make)) for path, make in (streams or {}).items()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LEAVING)
    await runner.setup()
    try:
        await web.SockSite(runner, taken).start()
        yield
    finally:
        await runner.cleanup()


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname
    except ValueError:
        host = None
    if host not in _OURS:
        return web.Response(status=421, text="ask for this page as 127.0.0.1 or localhost\n", headers=_HEADERS)
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.Response(status=error.status, text=f"{error.status} {error.reason}\n", headers=_HEADERS)


def _answering(make: Callable[[], Page]) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        page = make()
        policy = f"{_NOTHING}; {page.policy}" if page.policy else _NOTHING
        headers = {**_HEADERS, "Content-Type": page.content_type, "Content-Security-Policy": policy}
        return web.Response(body=page.text.encode(), headers=headers)

    return answer


def _telling(make: Callable[[], AsyncIterator[str]]) -> Handler:
    async def tell(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        try:
            async for text in make():
                await response.write(f"data: {text}\n\n".encode())
        except ConnectionError:  # the reader has gone
            pass
        return response

    return tell
