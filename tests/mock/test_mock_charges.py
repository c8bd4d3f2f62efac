"""What a request costs, and how long it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from mock_http import (
    CHAT,
    HI,
    MODELS,
    Json,
    events,
    session,
)

from ratelimit.testing.mock import Limits, MockServer


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with session() as opened:
        yield opened


B93 = [{"role": "system", "content": "x" * 46}, {"role": "user", "content": "x" * 47}]
RESPONSE = {"model": "m", "input": "x" * 41}
FUNCTION = {"type": "function", "name": "f", "parameters": {}}


@pytest.mark.parametrize(
    ("charge", "path", "ask", "tokens"),
    [
        ("chat_2025", CHAT, {"messages": B93, "max_tokens": 100}, 27),
        ("chat_2025", CHAT, {"messages": [{"role": "user", "content": "é" * 10}], "n": 2, "tools": [{}]}, 5 + 1 + 2),
        ("chat_2024", CHAT, {"messages": [{"role": "user", "content": "x" * 18}], "max_tokens": 50}, 5 + 1 + 50),
        ("chat_2024", CHAT, {"messages": [{"role": "user", "content": "x" * 18}], "n": 2}, 5 + 1 + 32),
        ("documented", CHAT, {"messages": B93, "max_tokens": 100}, 100),
        ("documented", CHAT, {"messages": [{"role": "user", "content": "é" * 10}]}, 3),
        ("exact", CHAT, {"messages": B93, "max_tokens": 100}, 24 + 9 + 100),
        ("chat_2025", "/completions", {"prompt": "x" * 45, "max_tokens": 10}, 12),
        ("chat_2024", "/completions", {"prompt": "x" * 247, "max_tokens": 256}, 318),
        ("chat_2025", "/embeddings", {"input": ["x" * 50, "x" * 50, "x" * 51]}, 38),
        ("chat_2025", "/responses", {"input": "x" * 41, "max_output_tokens": 100}, 11 + 6 + 19),
        ("chat_2025", "/responses", {"input": "x" * 41, "tools": [FUNCTION]}, 11 + 6 + 217),
        ("chat_2025", "/responses", {"input": "x" * 41, "tools": [{"type": "web_search"}]}, 11 + 6 + 19),
    ],
)
async def test_the_charge_is_taken_from_tokens(
    http: aiohttp.ClientSession, charge: Any, path: str, ask: Json, tokens: int
) -> None:
    async with (
        MockServer(models={"m": Limits(tpm=10_000)}, charge=charge) as mock,
        http.post(mock.base_url + path, json={"model": "m", **ask}) as reply,
    ):
        assert reply.headers["x-ratelimit-remaining-tokens"] == str(10_000 - tokens)
        assert mock.stats.tokens == tokens


async def test_latency_is_waited_and_told(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS, latency=1.5, token_delay=0.25, output_tokens=4) as mock:
        begun = mock.service.elapsed()
        async with http.post(mock.base_url + CHAT, json=HI) as reply:
            assert reply.headers["openai-processing-ms"] == "1500"
        assert mock.service.elapsed() - begun == pytest.approx(1.5)
        await events(http, mock, CHAT, HI)
        assert mock.service.elapsed() - begun == pytest.approx(1.5 + 1.5 + 7 * 0.25)
