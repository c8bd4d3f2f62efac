"""Replies that go wrong on the wire: connections, bodies, headers, streams."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from mock_http import CHAT, HI, MODELS, Json, post, session

from ratelimit.testing.mock import MockServer
from ratelimit.testing.mock.replies import _Ready, written
from ratelimit.testing.mock.sabotage import ABSURD


async def read(http: aiohttp.ClientSession, mock: MockServer, **more: Any) -> tuple[int, bytes]:
    async with http.post(mock.base_url + CHAT, json={**HI, **more}) as reply:
        return reply.status, await reply.read()


@pytest.mark.parametrize("kind", ["reset", "cut", "length"])
async def test_a_reply_that_does_not_arrive_is_an_error_of_the_connection(
    http: aiohttp.ClientSession, kind: str
) -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next(kind)
        with pytest.raises((aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)):
            await read(http, mock)
        assert (mock.stats.admitted, mock.stats.statuses) == (1, {0: 1})
        assert (await read(http, mock))[0] == 200


async def test_a_body_is_cut_after_so_many_bytes() -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next("cut", bytes=7)
        async with session() as http, http.post(mock.base_url + CHAT, json=HI) as reply:
            begun = await reply.content.readexactly(7)
            assert begun == b'{\n  "id'
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.read()


async def test_truncated_json_html_and_a_redirect_are_whole_replies(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next("truncated", bytes=10)
        assert await read(http, mock) == (200, b'{\n  "id": ')
        mock.fail_next("html")
        async with http.post(mock.base_url + CHAT, json=HI) as reply:
            assert (reply.status, reply.content_type) == (200, "text/html")
            assert (await reply.text()).startswith("<html>")
        mock.fail_next("redirect", headers={"location": "http://elsewhere.invalid/"})
        async with http.post(mock.base_url + CHAT, json=HI, allow_redirects=False) as reply:
            assert (reply.status, reply.headers["location"]) == (307, "http://elsewhere.invalid/")


async def test_slow_replies_take_their_time(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        begun = mock.service.elapsed()
        mock.fail_next("drip", bytes=100, seconds=2)
        _, body = await read(http, mock)
        took = mock.service.elapsed() - begun
        assert took == pytest.approx(2 * -(-len(body) // 100))
        mock.fail_next("hang", seconds=30)
        assert (await read(http, mock))[0] == 200
        assert mock.service.elapsed() - begun - took == pytest.approx(30)
        mock.fail_next("stall", seconds=40)
        with pytest.raises(aiohttp.ClientConnectionError):
            await read(http, mock)
        assert mock.service.elapsed() - begun - took == pytest.approx(70)


@pytest.mark.parametrize(("reply", "pieces"), [(written(), []), (_Ready(204, b"head", b""), [b"head"])])
async def test_nothing_empty_is_written(reply: web.StreamResponse, pieces: list[bytes]) -> None:
    connection = Mock(is_closing=lambda: False)
    await reply.prepare(Mock(transport=connection))
    connection.writelines.assert_called_once_with(pieces)


async def test_a_client_that_gives_up_and_sends_again_is_seen_twice(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next("hang", seconds=60)
        impatient = aiohttp.ClientTimeout(total=5)
        with pytest.raises(TimeoutError):
            await http.post(mock.base_url + CHAT, json=HI, timeout=impatient, headers={"Idempotency-Key": "a"})
        await post(http, mock, CHAT, HI, **{"Idempotency-Key": "a"})
        await post(http, mock, CHAT, {**HI, "metadata": {"custom_id": "a"}})
        assert (mock.stats.duplicates, mock.stats.answered_twice, mock.stats.in_flight) == (2, 1, 0)


async def test_a_duplicate_is_the_same_reply_twice_on_one_connection() -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next("duplicate")
        body = b'{"model":"gpt-4o-mini","messages":[]}'.replace(b"[]", b'[{"role":"user","content":"hi"}]')
        found = await raw(mock, b"POST /v1/chat/completions HTTP/1.1", body)
    assert found.count(b"HTTP/1.1 200 OK") == 2
    assert found[: len(found) // 2] == found[len(found) // 2 :]


async def raw(mock: MockServer, line: bytes, body: bytes) -> bytes:
    port = int(mock.root_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line + b"\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    found = await reader.read()
    writer.close()
    await writer.wait_closed()
    return found


async def test_a_bomb_is_small_on_the_wire() -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next("bomb", bytes=50_000_000)
        async with session() as http:
            http._auto_decompress = False
            async with http.post(mock.base_url + CHAT, json=HI) as reply:
                assert reply.headers["content-encoding"] == "gzip"
                assert len(await reply.read()) < 100_000


async def test_absurd_headers_come_one_kind_at_a_time_or_as_given(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        for variant, rows in ABSURD.items():
            mock.fail_next("headers", variant=variant)
            async with http.post(mock.base_url + CHAT, json=HI) as reply:
                assert reply.status == 200
                for name, value in rows:
                    assert value in reply.headers.getall(name)
        mock.fail_next("headers", headers={"retry-after": "-7"})
        async with http.post(mock.base_url + CHAT, json=HI) as reply:
            assert reply.headers["retry-after"] == "-7"
        mock.fail_next("no_headers")
        async with http.post(mock.base_url + CHAT, json=HI) as reply:
            assert not [name for name in reply.headers if name.lower().startswith("x-ratelimit")]


async def test_a_stream_breaks_or_ends_in_failure_after_it_was_accepted(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        mock.fail_next("stream_break")
        with pytest.raises(aiohttp.ClientPayloadError):
            await read(http, mock, stream=True)
        mock.fail_next("response_failed", times=3)
        status, text = await read(http, mock, stream=True)
        assert status == 200
        assert text.endswith(b'"type":"tokens","param":null,"code":"rate_limit_exceeded"}}\n\n')
        ask: Json = {"model": "gpt-4o-mini", "input": "hi", "stream": True}
        async with http.post(mock.base_url + "/responses", json=ask) as reply:
            text = await reply.read()
            assert reply.status == 200
        assert text.count(b"event: ") == 3
        assert b"event: response.failed\n" in text
        assert b'"status":"failed"' in text
        assert b'"error":{"code":"rate_limit_exceeded","message":"Rate limit reached for gpt-4o-mini' in text
        assert (await read(http, mock))[0] == 200
