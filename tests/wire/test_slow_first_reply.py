"""What the first reply teaches, it teaches however late it comes and whatever the table had said."""

from __future__ import annotations

import asyncio

import pytest

from ratelimit.compose import make_client
from ratelimit.secret import Secret
from ratelimit.settings import Settings
from ratelimit.testing.mock import MockServer


@pytest.mark.parametrize("tpm", [200_000, 60_000])
@pytest.mark.parametrize("latency", [0.0, 2.0, 10.0])
async def test_the_charge_is_learnt_from_a_first_reply_however_slow(latency: float, tpm: int) -> None:
    body = {"model": "gpt-4o-mini", "max_tokens": 2000, "messages": [{"role": "user", "content": "word " * 30}]}
    async with MockServer(tier="tier-1", latency=latency, tpm=tpm) as mock:
        settings = Settings(base_url=mock.base_url, api_key=Secret("sk-test"))
        async with make_client(settings) as client:
            began = asyncio.get_running_loop().time()
            async for result in client.map(body for _ in range(400)):
                result.unwrap()
            took = asyncio.get_running_loop().time() - began
        assert mock.stats.snapshot()["refused"] == {}
    # 400 requests of some 40 tokens are within the burst of 500 and of the tokens; 2,000 each would take minutes.
    assert took < 20 + latency
