"""Replies as bytes: a whole reply is written to its connection in one piece.

aiohttp's own response object costs more than everything else the mock does for a request, so an ordinary reply goes out
as a status line, header rows and body that are put together here. Whatever is not ordinary (a large body, a client that
wants its connection closed, HTTP/1.0) is left to aiohttp.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from aiohttp import web

from ratelimit.testing.mock.headers import Rows, lines, rows

_LARGEST = 65_536  # beyond it a slow reader must be waited for, which aiohttp does
_HTTP_1_1 = (1, 1)
_STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n" for each in HTTPStatus}


class _Ready(web.StreamResponse):
    """A reply that is bytes already."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self._status = status  # all of aiohttp's own state there is a use for: the rest is never looked at
        self._pieces = [piece for piece in (head, body) if piece]  # since Python 3.12 asyncio never gets done with none

    async def prepare(self, request: web.BaseRequest) -> None:
        """Writes the whole reply; nothing is left for `write_eof`."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        transport.writelines(self._pieces)

    async def write_eof(self, data: bytes = b"") -> None:
        """Has nothing to do."""

    @property
    def keep_alive(self) -> bool:
        """Always: other connections get aiohttp's own replies."""
        return True


def written() -> web.StreamResponse:
    """A reply that is on its connection already, which stays open."""
    return _Ready(200, b"", b"")


class Reply(msgspec.Struct, frozen=True):
    """A whole reply before it is written; its headers are lines already."""

    status: int
    lines: str
    body: bytes

    def to(self, request: web.BaseRequest) -> web.StreamResponse:
        """The reply as the right kind of response to this request."""
        if request.version == _HTTP_1_1 and request.keep_alive and len(self.body) <= _LARGEST:
            return _Ready(self.status, self.head(len(self.body)), self.body)
        return self.whole()

    def whole(self) -> web.Response:
        """The reply as aiohttp's response."""
        return web.Response(status=self.status, body=self.body, headers=rows(self.lines))

    def head(self, length: int) -> bytes:
        """The status line and headers, with a content length that may be a lie."""
        return f"{_STATUS_LINES[self.status]}{self.lines}content-length: {length}\r\n\r\n".encode()

    def with_rows(self, changed: Rows) -> Reply:
        """The reply with other headers."""
        return Reply(self.status, lines(changed), self.body)
