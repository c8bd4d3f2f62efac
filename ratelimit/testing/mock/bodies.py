"""Reading request bodies: bounded in size and in time, whatever a client sends."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ratelimit.testing.mock.refusals import NOT_JSON, Problem, Refused, too_large

_TIMED_OUT = Problem(408, "The request body did not arrive in time.", "invalid_request_error", "request_timeout")


async def read_body(request: web.BaseRequest, most: int, seconds: float) -> bytes:
    """The whole body, or Refused: 413 beyond `most` bytes, 408 after `seconds`, 400 where it is garbled."""
    content = request.content
    try:
        if content.is_eof():
            raw = content.read_nowait()
        elif (request.content_length or 0) > most:
            raise Refused(too_large(most))
        else:
            async with asyncio.timeout(seconds):
                raw = await _read_slowly(request, most)
    except TimeoutError:
        raise Refused(_TIMED_OUT) from None
    except web.RequestPayloadError:
        raise Refused(NOT_JSON) from None
    if len(raw) > most:
        raise Refused(too_large(most))
    return raw


async def _read_slowly(request: web.BaseRequest, most: int) -> bytes:
    parts = bytearray()
    async for part in request.content.iter_any():
        parts += part
        if len(parts) > most:
            raise Refused(too_large(most))
    return bytes(parts)
