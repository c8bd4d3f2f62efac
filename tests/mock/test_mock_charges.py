"""What a request costs, and how long it takes."""

from __future__ import annotations

import math
from typing import Any

import aiohttp
import pytest
from mock_http import CHAT, HI, MODELS, Json, events, post

from ratelimit.errors import BadMockOption
from ratelimit.testing.mock import Limits, MockServer
from ratelimit.testing.mock.spreads import spread

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


@pytest.mark.parametrize(
    ("text", "quantile", "value"),
    [
        ("5", 0.2, 5),
        ("2-10", 0.25, 4),
        ("lognormal:100,0.5", 0.5, 100),
        ("lognormal:100,0.5", 0.8413447460685429, 100 * math.exp(0.5)),
        ("exponential:10", 1 - math.exp(-1), 10),
    ],
)
def test_a_spread_has_its_quantiles(text: str, quantile: float, value: float) -> None:
    assert spread(text, "--latency").at(quantile) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1-2-3", "lognormal:5", "exponential:x", "uniform:1,2"])
def test_what_is_no_spread_is_refused(text: str) -> None:
    with pytest.raises(BadMockOption) as raised:
        spread(text, "--latency")
    assert str(raised.value) == (
        f"--latency cannot be {text!r}: write a number, LOW-HIGH, lognormal:MEDIAN,SIGMA or exponential:MEAN, none of "
        "them negative"
    )


async def test_a_long_prompt_counts_against_the_limits_for_long_ones(http: aiohttp.ClientSession) -> None:
    ask = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "x" * 4 * 130_000}]}
    async with MockServer(tier="tier-1", models=["gpt-4.1"]) as mock:
        async with http.post(mock.base_url + CHAT, json=ask) as reply:
            assert reply.status == 200
            assert reply.headers["x-ratelimit-limit-requests"] == "100"
            assert reply.headers["x-ratelimit-limit-tokens"] == "200000"
        status, body = await post(http, mock, CHAT, ask)
        long = mock.service.catalogue.families()[0].long
        assert long is not None
        assert status == 429
        assert f"Rate limit reached for gpt-4.1 (for limit {long.name}) in organization" in body["error"]["message"]
        status, _ = await post(http, mock, CHAT, {**ask, "messages": [{"role": "user", "content": "hi"}]})
        assert status == 200


async def test_a_snapshot_and_a_fine_tuned_model_share_the_limits_of_their_family(http: aiohttp.ClientSession) -> None:
    names = ["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini-2024-07-18:org::id"]
    async with MockServer(tier="free", models=["gpt-4o-mini"]) as mock:
        answered = [(await post(http, mock, CHAT, {**HI, "model": name}))[1]["model"] for name in names]
        assert answered == ["gpt-4o-mini-2024-07-18", *names[1:]]
        status, body = await post(http, mock, CHAT, {**HI, "model": names[1]})
    assert status == 429
    assert "reached for gpt-4o-mini-2024-07-18 (for limit gpt-4o-mini) in" in body["error"]["message"]


async def test_rejected_requests_count_where_that_is_asked_for(http: aiohttp.ClientSession) -> None:
    for counted, left in ((False, "9"), (True, "0")):
        async with MockServer(models={"gpt-4o-mini": Limits(rpm=100, tpm=12)}, count_rejected=counted) as mock:
            await post(http, mock, CHAT, HI)
            large = {**HI, "messages": [{"role": "user", "content": "x" * 40}]}
            async with http.post(mock.base_url + CHAT, json=large) as reply:
                assert (reply.status, reply.headers["x-ratelimit-remaining-tokens"]) == (429, left)
