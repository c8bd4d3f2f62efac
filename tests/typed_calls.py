"""Every public call once, with the type each has: read by the type checkers, and run by nobody."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, assert_type

import ratelimit
from ratelimit.admission.blocking import BlockingTurn
from ratelimit.admission.scheduler import LaneStatus
from ratelimit.testing import VirtualClockLoop, run
from ratelimit.testing.mock import MockServer

BODY: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why?"}]}


async def with_a_client() -> None:
    assert_type(ratelimit.open(tier="tier-1", rpm=300), ratelimit.Client)
    async with ratelimit.open(tier="tier-1") as client:
        assert_type(client, ratelimit.Client)
        reply = await client.send(BODY, "/v1/chat/completions", priority=1, deadline=60)
        assert_type(reply, ratelimit.Reply)
        assert_type(await client.chat("gpt-4o-mini", "Why?", system="Be brief.", temperature=0), ratelimit.Reply)
        assert_type(await client.embed("text-embedding-3-small", ["one", "two"]), list[list[float]])
        assert_type(client.snapshot(), tuple[LaneStatus, ...])
        async with client.stream({**BODY, "stream": True}) as pieces:
            async for piece in pieces:
                assert_type(piece, bytes)
        assert_type(client.map([BODY], ordered=True, window=10), AsyncGenerator[ratelimit.Result, None])
        async for result in client.map([BODY]):
            assert_type(result.index, int)
            assert_type(result.reply, ratelimit.Reply | None)
            assert_type(result.error, ratelimit.RateLimitError | None)
            assert_type(result.unwrap(), ratelimit.Reply)
        assert_type(reply.status, int)
        assert_type(reply.text, str)
        assert_type(reply.body, bytes)
        assert_type(reply.request_id, str | None)


def with_threads() -> None:
    with ratelimit.BlockingClient(ratelimit.open()) as client:
        assert_type(client.send(BODY), ratelimit.Reply)
        assert_type(client.chat("gpt-4o-mini", "Why?"), ratelimit.Reply)
        assert_type(client.embed("text-embedding-3-small", "one"), list[list[float]])
        for result in client.map([BODY], ordered=True):
            assert_type(result, ratelimit.Result)
    with (
        ratelimit.BlockingScheduler(lambda: ratelimit.Scheduler({})) as scheduler,
        scheduler.reserve("my-model", tokens=8) as turn,
    ):
        assert_type(turn, BlockingTurn)
        turn.used(tokens=6)


async def with_a_scheduler() -> None:
    limit = ratelimit.Limit("requests", 500, ratelimit.MINUTE)
    assert_type(limit.name, str)
    scheduler = ratelimit.Scheduler({"my-model": [limit, ratelimit.Limit("tokens", 1e6, ratelimit.DAY)]})
    async with scheduler.reserve("my-model", tokens=800, priority=1, wait_at_most=5) as turn:
        assert_type(turn, ratelimit.Turn)
        turn.used(tokens=600)

    @scheduler.limited("my-model", tokens=10)
    async def double(number: int) -> int:
        return 2 * number

    assert_type(await double(2), int)
    assert_type(scheduler.snapshot(), tuple[LaneStatus, ...])


async def with_a_mock() -> None:
    async with MockServer(tier="tier-1") as mock:
        assert_type(mock.base_url, str)
        assert_type(mock.stats.arrived, int)


def on_a_virtual_clock() -> None:
    async def answer() -> int:
        return 42

    assert_type(run(answer()), int)
    assert_type(VirtualClockLoop(5.0).time(), float)


def with_errors() -> None:
    try:
        ratelimit.open(tier="tier-9")
    except ratelimit.RateLimitError as error:
        assert_type(error.exit_code, int)
