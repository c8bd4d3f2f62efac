"""Who is to blame for failures, the request or the service, where a slow lane or a small job asks few."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest
from wire_rig import Raw, ask, make, reply

from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.testing.mock import MockServer
from ratelimit.wire.client import Client

DOWN = reply({"error": {"message": "The server had an error", "type": "server_error"}}, 500)


def slow(rpm: float) -> tuple[Limit, ...]:
    return (Limit("requests", rpm, MINUTE), Limit("tokens", 1_000_000, MINUTE))


async def failed(client: Client, asked: list[str]) -> set[str]:
    """Ask everything at once; returns what was given up."""
    async with asyncio.timeout(20_000):
        answers = await asyncio.gather(*(client.send(ask(each)) for each in asked), return_exceptions=True)
    return {each for each, answer in zip(asked, answers, strict=True) if isinstance(answer, Exception)}


def content(body: bytes) -> str:
    return str(json.loads(body)["messages"][0]["content"])


@pytest.mark.parametrize("rpm", [1, 6, 60])
async def test_an_outage_uses_up_nobodys_attempts_however_slow_the_lane(rpm: int) -> None:
    limits, rows = slow(rpm), [f"{n}" for n in range(30)]
    async with (
        MockServer(rpm=rpm, tpm=1_000_000, faults=["500:between=0s-3600s"]) as mock,
        make(mock.base_url, limits=limits) as client,
    ):
        assert await failed(client, rows) == set()
        assert client.count.attempts <= 30 + 3600 / 30 + 25  # one look in half a minute, and what it took to be sure


@pytest.mark.parametrize("rpm", [60, 300])
async def test_answers_to_what_left_before_the_outage_blame_nobody(rpm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a wait the foremost fails six times before others are asked, while what left before is still answered.
    monkeypatch.setattr(random, "uniform", lambda low, _high: low)

    async def act(_: Raw, writer: asyncio.StreamWriter) -> None:
        down = 75 <= asyncio.get_running_loop().time() <= 600
        await asyncio.sleep(0 if down else 8)
        writer.write(DOWN if down else reply())

    async with Raw(act) as server, make(server.url, limits=slow(rpm)) as client:
        assert await failed(client, [f"{n}" for n in range(3 * rpm)]) == set()


async def picky(server: Raw, writer: asyncio.StreamWriter) -> None:
    """Always fail at one question."""
    writer.write(DOWN if content(server.requests[-1][2]) == "bad" else reply())


async def test_one_that_always_fails_is_given_up_once_another_was_answered() -> None:
    async with Raw(picky) as server, make(server.url, limits=slow(3)) as client:
        assert await failed(client, ["bad", "a", "b", "c"]) == {"bad"}
    assert [content(body) for _, _, body in server.requests] == [*["bad"] * 6, "a", "b", "c", "bad"]


async def test_one_that_always_fails_among_many_is_asked_no_oftener_than_it_may() -> None:
    async with Raw(picky) as server, make(server.url, limits=slow(600), concurrency=5) as client:
        assert await failed(client, ["bad", *[f"{n}" for n in range(1000)]]) == {"bad"}
    assert [content(body) for _, _, body in server.requests].count("bad") == 6


async def test_another_line_is_no_witness() -> None:
    # Whoever waits in a line that is full for long would keep the last of another line failing for as long.
    async with Raw(DOWN) as server, make(server.url, limits=slow(60), concurrency=1) as client:
        async with client.sender.gate.scheduler.reserve("gpt-4o", requests=1):
            waiting = asyncio.create_task(client.send(ask("elsewhere", model="gpt-4o")))
            assert await failed(client, ["bad"]) == {"bad"}
            waiting.cancel()
        assert [content(body) for _, _, body in server.requests] == ["bad"] * 6


async def test_where_nobody_is_left_to_try_six_attempts_are_all() -> None:
    async with Raw(DOWN) as server, make(server.url, limits=slow(60)) as client:
        assert await failed(client, ["a", "b", "c"]) == {"a", "b", "c"}
        assert Counter(content(body) for _, _, body in server.requests) == {"a": 6, "b": 6, "c": 6}
