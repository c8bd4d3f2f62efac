"""Asking again: how often, how soon, and what a service that is down gets to see."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from functools import partial
from typing import Any

import pytest
from tenacity import AsyncRetrying
from wire_rig import Act, Raw, after, ask, make, missing, reply, served, then_close, then_reset

import ratelimit.wire.retry
from ratelimit.errors import DeadlinePassed, KeyRejected, NotAnswered, QuotaExhausted, RateLimitError, RequestFailed
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.testing.mock import MockServer
from ratelimit.wire.client import Client
from ratelimit.wire.messages import request
from ratelimit.wire.retry import Policy

DOWN = reply({"error": {"message": "The server had an error", "type": "server_error"}}, 500)
EMPTY = reply({"error": {"message": "No credits.", "code": "insufficient_quota"}}, 429)
MANY: dict[str, Any] = {"rpm": 6_000_000, "tpm": 600_000_000, "rpd": 60_000_000}


def now() -> float:
    return asyncio.get_running_loop().time()


def refusal(wait: str = "2s", **headers: str) -> bytes:
    message = (
        f"Rate limit reached for gpt-4o-mini in organization org-1 on requests per min (RPM): Limit 6000000, "
        f"Used 6000000, Requested 1. Please try again in {wait}."
    )
    return reply({"error": {"message": message, "type": "requests", "code": "rate_limit_exceeded"}}, 429, headers)


@pytest.fixture
def longest_jitter(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every wait is the longest there may be; returns the bounds that were asked for."""
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    return bounds


@pytest.mark.parametrize("act", [DOWN, then_reset(), then_close(), reply(b"<html>"), reply({}, 503), reply({}, 408)])
async def test_a_passing_failure_is_not_seen(act: bytes | Act) -> None:
    async with served(act, act, reply()) as (server, client):
        assert (await client.send(ask())).text == "hello there"
        assert len(server.requests) == 3
        assert (client.count.attempts, client.count.retried, client.count.succeeded) == (3, 2, 1)


async def test_attempts_are_counted_and_waits_doubled(longest_jitter: list[float]) -> None:
    async with served(reply(), DOWN, policy=Policy(attempts=9, first_wait=0.5, longest_wait=10)) as (server, client):
        await client.send(ask())
        start = now()
        with pytest.raises(RequestFailed) as caught:
            await client.send(ask())
        assert str(caught.value) == "the service answered 500 server_error: The server had an error"
        assert len(server.requests) == 1 + 9
        assert longest_jitter[:8] == [0.5, 1, 2, 4, 8, 10, 10, 10]
        assert now() - start == pytest.approx(sum(longest_jitter[:8]))
        assert (client.count.failed, client.count.retried) == (1, 8)


async def test_jitter_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    async with served(reply(), DOWN, policy=Policy(attempts=5)) as (server, client):
        await client.send(ask())
        start = now()
        with pytest.raises(RequestFailed):
            await client.send(ask())
        assert (len(server.requests), now()) == (1 + 5, start)


async def test_the_last_attempt_is_not_waited_for(longest_jitter: list[float]) -> None:
    async with served(DOWN, policy=Policy(attempts=1)) as (_, client):
        with pytest.raises(RequestFailed):
            await client.send(ask())
        assert now() == 0
    assert longest_jitter in ([], [0.5])


async def test_a_wait_that_was_told_is_kept_and_an_absurd_one_cut(longest_jitter: list[float]) -> None:
    told = [
        reply({}, 503, {"Retry-After": "7"}),
        reply({}, 503, {"retry-after-ms": "250"}),
        reply({}, 503, {"Retry-After": "9999"}),
    ]
    async with served(*told, reply(), policy=Policy(longest_wait=60)) as (_, client):
        start = now()
        await client.send(ask())
        assert now() - start == pytest.approx(7 + 0.25 + 60)
    assert longest_jitter == []


async def test_refusals_use_up_no_attempts() -> None:
    async with served(*[refusal("1s")] * 30, reply(), policy=Policy(attempts=2)) as (server, client):
        assert (await client.send(ask())).text == "hello there"
        assert len(server.requests) == 31
        assert (client.count.refused, client.count.failed) == (30, 0)


async def test_failures_between_refusals_are_counted(longest_jitter: list[float]) -> None:
    async with served(DOWN, refusal(), DOWN, refusal(), DOWN, reply(), policy=Policy(attempts=3)) as (server, client):
        with pytest.raises(RequestFailed):
            await client.send(ask())
        assert len(server.requests) == 5
        assert longest_jitter[:2] == [0.5, 1]


async def test_slow_down_closes_the_lane_and_costs_no_attempt() -> None:
    slow = reply(
        {"error": {"message": "?", "type": "rate_limit_error", "code": "slow_down"}}, 429, {"Retry-After": "4"}
    )
    async with served(slow, reply(), policy=Policy(attempts=1)) as (_, client):
        first = asyncio.create_task(client.send(ask()))
        await asyncio.sleep(1)
        await client.send(ask())
        await first
        assert now() == pytest.approx(4)


async def test_a_server_that_always_refuses_is_asked_seldom_and_left_at_the_deadline() -> None:
    async with served(reply(b"Too Many Requests", 429)) as (server, client):
        with pytest.raises(DeadlinePassed) as caught:
            await client.send(ask(), deadline=3600)
        assert now() == pytest.approx(3600)
        assert len(server.requests) <= 3600
        assert str(caught.value).startswith(
            "no answer within the deadline of 3600 s: the lane stands at <Scheduler gpt-4o-mini"
        )
        assert (client.count.failed, client.count.succeeded) == (1, 0)


async def test_tenacity_comes_in_with_the_first_failure_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def retrying(**how: Any) -> AsyncRetrying:
        made.append(how)
        return AsyncRetrying(**how)

    monkeypatch.setattr(ratelimit.wire.retry, "AsyncRetrying", retrying)
    async with served(reply(), reply(), DOWN, reply()) as (_, client):
        await client.send(ask())
        await client.send(ask())
        assert made == []
        await client.send(ask())
        assert len(made) == 1


async def outcomes(client: Client, count: int) -> Counter[str]:
    return Counter([type(r.error).__name__ async for r in client.map(ask(f"{n}") for n in range(count))])


async def test_an_outage_costs_a_bounded_number_of_calls_and_ends_by_itself() -> None:
    async with MockServer(**MANY, latency=0.2) as mock, make(mock.base_url, concurrency=200) as client:
        mock.fault("500:between=0s-600s")
        job = asyncio.create_task(outcomes(client, 10_000))
        await asyncio.sleep(60)
        assert client.sender.paused
        before_pause = mock.stats.arrived
        assert before_pause <= 300
        await asyncio.sleep(530)
        probes = mock.stats.arrived - before_pause
        assert probes + 1 >= 530 / 30
        assert probes <= 30
        assert await job == {"NoneType": 10_000}
        assert not (await outcomes(client, 1) and client.sender.paused)
        assert mock.stats.arrived <= 10_000 + 300 + 40
        assert now() < 700


async def test_who_already_stands_in_line_when_the_service_goes_down_is_not_sent() -> None:
    limits = (Limit("requests", 600, MINUTE), Limit("tokens", 600_000_000, MINUTE))
    async with MockServer(**MANY) as mock, make(mock.base_url, limits=limits, concurrency=9999) as client:
        mock.fault("502:between=0s-300s")
        waiting = [asyncio.create_task(client.send(ask(f"{n}"))) for n in range(2000)]
        await asyncio.sleep(299)
        assert mock.stats.arrived <= 100
        answers = await asyncio.gather(*waiting)
        assert all(answer.status == 200 for answer in answers)


async def test_a_silent_service_is_probed_less_and_less_often() -> None:
    options: dict[str, Any] = {"policy": Policy(reserve=3), "concurrency": 50}
    async with Raw(after(1e6, b"")) as server, make(server.url, **options) as client:
        client.transport._bounds = type(client.transport._bounds)(first_byte=50)
        job = asyncio.create_task(outcomes(client, 100))
        await asyncio.sleep(1000)
        assert client.sender.paused
        assert len(server.requests) <= 50 + 20 + 1000 / 30
        job.cancel()


@pytest.mark.parametrize("fault", ["500:rate=0.3", "reset:rate=0.3", "overloaded:rate=0.3"])
async def test_a_third_failing_is_no_outage(fault: str) -> None:
    async with MockServer(**MANY, latency=0.05, seed=4) as mock, make(mock.base_url) as client:
        mock.fault(fault)
        paused = 0
        finished: Counter[str] = Counter()
        async for result in client.map(ask(f"{n}") for n in range(1000)):
            finished[type(result.error).__name__] += 1
            paused += client.sender.paused
        assert paused == 0
        assert finished["NoneType"] > 990


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (EMPTY, QuotaExhausted),
        (reply({"error": {"message": "no"}}, 401), KeyRejected),
        (reply({"error": {"message": "no"}}, 403), KeyRejected),
        (reply({"error": {"message": "no", "code": "insufficient_quota"}}), QuotaExhausted),
    ],
)
async def test_what_no_retry_cures_stops_everything_at_first_sight(act: bytes, error: type[RateLimitError]) -> None:
    # The first is answered, so that the lane is open; then 200 are in flight when the first of them hears of it.
    async with served(reply(), after(1, act), concurrency=200) as (server, client):
        await client.send(ask())
        with pytest.raises(error):
            await outcomes(client, 10_000)
        assert len(server.requests) == 201
        with pytest.raises(error):
            await client.send(ask())
        assert len(server.requests) == 201


async def test_who_waits_for_a_turn_hears_at_once_that_all_is_over() -> None:
    async with MockServer(rpm=60, tpm=10_000_000) as mock, make(mock.base_url, limits="tier-1") as client:
        waiting = [asyncio.create_task(client.send(ask(f"{n}"))) for n in range(1000)]
        await asyncio.sleep(100)
        mock.fail_next("insufficient_quota")
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert now() < 105
        assert Counter(type(each).__name__ for each in done)["QuotaExhausted"] > 800
        assert all(task.cancelling() == 0 for task in waiting)
        assert missing(client)["RPM"] >= 0


async def test_a_caller_that_is_cancelled_is_cancelled_whatever_else_happens() -> None:
    async with served(reply(), after(5, EMPTY), concurrency=1) as (_, client):
        await client.send(ask())
        first, second = asyncio.create_task(client.send(ask())), asyncio.create_task(client.send(ask()))
        await asyncio.sleep(1)
        second.cancel()
        client.sender.dismiss(QuotaExhausted("x", "y"))
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(QuotaExhausted):
            await first


async def test_concurrency_shrinks_with_the_service_and_grows_back() -> None:
    async def act(server: Raw, writer: asyncio.StreamWriter) -> None:
        overloaded = server.in_flight > 20 and now() < 60
        await asyncio.sleep(0.5)
        writer.write(reply({}, 503) if overloaded else reply())

    async with Raw(act) as server, make(server.url, concurrency=100, policy=Policy(attempts=50)) as client:
        job = asyncio.create_task(outcomes(client, 6000))
        await asyncio.sleep(30)
        (lane,) = client.sender.gate.scheduler._lanes.values()
        assert lane.concurrency < 60
        assert await job == {"NoneType": 6000}
        assert lane.concurrency == 100


async def test_a_network_that_is_gone_bills_nobody() -> None:
    async with Raw(reply()) as server:
        url = server.url
    async with make(url, policy=Policy(attempts=3)) as client:
        with pytest.raises(NotAnswered) as caught:
            await client.send(ask())
        assert not caught.value.sent
        assert (client.count.attempts, missing(client)) == (3, {"RPM": 0, "TPM": 0})


async def test_who_was_refused_stands_in_the_lane_at_its_old_place() -> None:
    async with served(reply(), refusal("2s", **{"Retry-After": "3"}), reply(), concurrency=1) as (server, client):
        await client.send(ask("first"))
        job = asyncio.gather(*[client.send(ask(name)) for name in "abc"])
        await asyncio.sleep(1)
        assert [lane.waiting for lane in client.snapshot()] == [3]
        await job
        sent = [json.loads(body)["messages"][0]["content"] for _, _, body in server.requests]
        assert sent == ["first", "a", "a", "b", "c"]


async def test_a_sender_alone_sends_nothing_after_it_was_stopped() -> None:
    async with served(reply(), after(1, EMPTY), concurrency=1) as (server, client):
        await client.send(ask())
        asked = request(ask())
        exchange = partial(client.transport.post, asked)
        done = await asyncio.gather(*[client.sender.send(asked, exchange) for _ in range(5)], return_exceptions=True)
        assert [type(each).__name__ for each in done] == ["QuotaExhausted"] * 5
        assert len(server.requests) == 2
        assert missing(client)["RPM"] <= 1


async def test_any_answer_ends_an_outage() -> None:
    refused = reply({"error": {"message": "no"}}, 400)
    async with served(reply(), *[after(0.1, DOWN)] * 100, refused, after(5, reply())) as (_, client):
        await client.send(ask())
        job = asyncio.create_task(outcomes(client, 100))
        await asyncio.sleep(0.9)
        paused = [client.sender.paused]
        await asyncio.sleep(0.5)
        assert [*paused, client.sender.paused] == [True, False]
        assert await job == {"NoneType": 99, "RequestFailed": 1}
