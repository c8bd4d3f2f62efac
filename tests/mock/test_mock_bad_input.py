"""Bodies of every bad kind get the service's 400 or 413, and cost no memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mock_http import CHAT, HI, MODELS, fits

from ratelimit.testing.mock import MockServer
from ratelimit.testing.mock.endpoints import ENDPOINTS
from ratelimit.testing.mock.refusals import NOT_JSON, Refused

ERROR = {"error": {"message": str, "type": "invalid_request_error", "param": (str, None), "code": (str, None)}}
NOT_JSON_SAID = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)


async def said(http: aiohttp.ClientSession, mock: MockServer, path: str, raw: Any) -> tuple[int, str, str | None]:
    async with http.post(mock.base_url + path, data=raw) as reply:
        body = await reply.json()
    fits(body, ERROR)
    return reply.status, body["error"]["message"], body["error"]["param"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b"[1]",
        b"\xff\xfe",
        b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "gpt-4o-mini", "unused": "\xff", "messages": [{"role": "user", "content": "x"}]}',
        b"[" * 100_000,
        b'{"model": "gpt-4o-mini", "messages": ' + b'[{"content":' * 50_000,
        b'{"model": "gpt-4o-mini", "unused": ' + b"[" * 50_000 + b"]" * 50_000 + b', "messages": []}',
        b'{"model": NaN}',
    ],
    ids=range(11),
)
async def test_what_is_not_json_is_said_to_be_not_json(http: aiohttp.ClientSession, raw: bytes) -> None:
    async with MockServer(models=MODELS) as mock:
        for path in ENDPOINTS:
            assert await said(http, mock, path.removeprefix("/v1"), raw) == (400, NOT_JSON_SAID, None)


@pytest.mark.parametrize(
    ("path", "body", "message", "param"),
    [
        (CHAT, {"messages": []}, "you must provide a model parameter", None),
        (CHAT, {"model": 5}, "Invalid type for 'model': expected a string, but got an integer instead.", "model"),
        (CHAT, {"model": "gpt-4o-mini"}, "Missing required parameter: 'messages'.", "messages"),
        (
            CHAT,
            {**HI, "messages": []},
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "messages",
        ),
        (
            CHAT,
            {**HI, "messages": "hi"},
            "Invalid type for 'messages': expected an array of objects, but got a string instead.",
            "messages",
        ),
        (
            CHAT,
            {**HI, "messages": ["hi"]},
            "Invalid type for 'messages[0]': expected an object, but got a string instead.",
            "messages[0]",
        ),
        (CHAT, {**HI, "messages": [{}]}, "Missing required parameter: 'messages[0].role'.", "messages[0].role"),
        (
            CHAT,
            {**HI, "messages": [{"role": "user", "content": 5}]},
            (
                "Invalid type for 'messages[0].content': expected one of a string or array of objects, but got an "
                "integer instead."
            ),
            "messages[0].content",
        ),
        (
            CHAT,
            {**HI, "messages": [{"role": "user", "content": [{"type": 7}]}]},
            "Invalid value in 'messages'.",
            "messages",
        ),
        (
            CHAT,
            {**HI, "max_tokens": 0},
            "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0 instead.",
            "max_tokens",
        ),
        (
            CHAT,
            {**HI, "stream": "yes"},
            "Invalid type for 'stream': expected a boolean, but got a string instead.",
            "stream",
        ),
        ("/responses", {"model": "gpt-4o-mini"}, "Missing required parameter: 'input'.", "input"),
        (
            "/embeddings",
            {"model": "text-embedding-3-small", "input": ["x"] * 2049},
            (
                "Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with "
                "length 2049 instead."
            ),
            "input",
        ),
        (
            "/embeddings",
            {"model": "text-embedding-3-small", "input": ["x", ""]},
            "Invalid 'input': its items are empty or of the wrong type.",
            "input",
        ),
        (
            "/embeddings",
            {"model": "text-embedding-3-small", "input": "x", "encoding_format": "hex"},
            "Invalid value: 'hex'. Supported values are: 'float' and 'base64'.",
            "encoding_format",
        ),
        (
            "/completions",
            {"model": "gpt-4o-mini", "prompt": ["a", 1]},
            "Invalid 'prompt': its items are empty or of the wrong type.",
            "prompt",
        ),
        (
            "/moderations",
            {"input": []},
            "Invalid 'input': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "input",
        ),
    ],
)
async def test_a_wrong_body_is_explained(
    http: aiohttp.ClientSession, path: str, body: Any, message: str, param: str | None
) -> None:
    async with MockServer(models=MODELS) as mock:
        assert await said(http, mock, path, json.dumps(body)) == (400, message, param)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = ("model", "messages", "input", "prompt", "n", "max_tokens", "stream", "tools", "text", "response_format")


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(ENDPOINTS)), st.dictionaries(st.sampled_from(names), anything), st.binary(max_size=20))
def test_no_body_does_more_than_be_read_or_refused(path: str, body: dict[str, Any], junk: bytes) -> None:
    endpoint = ENDPOINTS[path]
    for raw in (json.dumps(body).encode(), junk, json.dumps({"model": "m", **body}).encode()):
        with suppress(Refused):
            assert endpoint.read(raw).prompt_tokens >= 0


async def test_a_body_beyond_the_limit_is_too_large_whether_it_says_so_or_not(http: aiohttp.ClientSession) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 100_000

    async with MockServer(models=MODELS, most_body=1_000_000) as mock:
        expected = (413, "The request body is too large: the maximum is 1,000,000 bytes.", None)
        assert await said(http, mock, CHAT, b" " * 1_000_001) == expected
        tracemalloc.start()
        try:
            async with asyncio.timeout(30):
                status, *_ = await said(http, mock, CHAT, endless())
            assert status == 413
        except aiohttp.ClientConnectionError:
            pass  # the server has hung up on who went on sending
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000
        assert mock.stats.statuses == {413: 2}


async def test_a_body_that_never_ends_is_given_up() -> None:
    async with MockServer(models=MODELS, body_timeout=30) as mock:
        port = int(mock.root_url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: 9\r\n\r\n{"
        )
        assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        assert mock.service.elapsed() == pytest.approx(30)
        writer.close()
        await writer.wait_closed()


async def test_a_compressed_body_cannot_be_larger_than_an_open_one(http: aiohttp.ClientSession) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    async with (
        MockServer(models=MODELS, most_body=1_000_000) as mock,
        http.post(mock.base_url + CHAT, data=bomb, headers={"Content-Encoding": "gzip"}) as reply,
    ):
        assert reply.status == 413


async def test_paths_that_are_not_there_are_404(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        for path in ("/v1/nothing", "/v1/files//", "/else", "/v1/models/x/y"):
            async with http.get(mock.root_url + path) as reply:
                body = await reply.json()
            assert (reply.status, body["error"]["message"]) == (404, f"Invalid URL (GET {path})")
        async with http.get(mock.base_url + "/models", headers={"Authorization": ""}) as reply:
            assert reply.status == 401


def test_the_words_for_invalid_json() -> None:
    assert NOT_JSON.message == NOT_JSON_SAID
