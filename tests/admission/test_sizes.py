"""Requests of any size: a large one is never passed for ever, none is held up for nothing, and too large is told."""

from __future__ import annotations

import asyncio

import pytest

from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import NeverFits
from ratelimit.limits.bucket import MINUTE, Limit

TPM = 60_000


async def test_a_large_request_at_an_empty_bucket_goes_before_an_endless_stream_of_small_ones() -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]}, slack=0.0)
    async with scheduler.reserve("m", tokens=TPM) as turn:
        turn.used()
    emptied = loop.time()
    sent: list[tuple[float, float]] = []

    async def ask(tokens: float) -> None:
        async with scheduler.reserve("m", tokens=tokens) as turn:
            sent.append((tokens, loop.time() - emptied))
            turn.used()

    async def stream() -> None:
        while True:
            small.append(asyncio.create_task(ask(500)))
            await asyncio.sleep(0.25)  # four times as many as the limit lets pass

    small: list[asyncio.Task[None]] = []
    large = asyncio.create_task(ask(20_000))
    await asyncio.sleep(0)
    endless = asyncio.create_task(stream())
    await large
    await asyncio.sleep(2)
    # 20 s to save up 20,000, and then 500 every half second.
    assert [tokens for tokens, _ in sent] == [20_000, 500, 500, 500]
    assert [at for _, at in sent] == pytest.approx([20.0, 20.5, 21.0, 21.5])
    endless.cancel()
    for task in small:
        task.cancel()
    await asyncio.gather(endless, *small, return_exceptions=True)


async def test_a_request_without_tokens_passes_where_tokens_are_used_up() -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler({"m": [Limit("requests", 600, MINUTE), Limit("tokens", TPM, MINUTE)]}, pace=1000.0)
    async with scheduler.reserve("m", tokens=TPM) as turn:
        turn.used()
    then = loop.time()
    async with scheduler.reserve("m", tokens=0) as turn:
        assert turn.cost == {"requests": 1}
        turn.used()
    assert loop.time() - then <= MINUTE / 600  # one pacing interval


async def test_exactly_the_limit_passes_once_the_bucket_has_been_full_for_the_slack() -> None:
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]})
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(2), scheduler.reserve("m", tokens=TPM) as turn:
        assert loop.time() == 1.0  # what is kept back in reserve has to fill first
        turn.used()


async def test_one_more_than_the_limit_is_refused_at_once_and_says_what_to_do() -> None:
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]})
    with pytest.raises(NeverFits) as refusal:
        async with scheduler.reserve("m", tokens=TPM + 1):
            pytest.fail("nothing lets it pass")
    assert str(refusal.value) == (
        "this request needs 60,001 of TPM, which allows at most 60,000 at once; "
        "lower max_tokens, split the prompt, or choose a higher tier"
    )
    assert asyncio.get_running_loop().time() == 0.0
    assert repr(scheduler) == "<Scheduler m: 0 waiting, 0 in flight>"
