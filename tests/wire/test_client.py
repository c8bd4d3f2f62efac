"""The client: one request or many, lazily, in order or not, against a deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
from wire_rig import MODEL, Act, after, ask, make, missing, reply, served

from ratelimit.errors import BadRequest, DeadlinePassed, QuotaExhausted, RequestFailed
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.testing.mock import MockServer
from ratelimit.wire.client import Client, Result
from ratelimit.wire.many import InOrder, Many
from ratelimit.wire.messages import request
from ratelimit.wire.transport import Bounds

MANY: dict[str, Any] = {"rpm": 6_000_000, "tpm": 600_000_000, "rpd": 60_000_000}


def now() -> float:
    return asyncio.get_running_loop().time()


def texts(results: list[Result]) -> list[str]:
    return [json.loads(r.request.body)["messages"][0]["content"] for r in results if r.request]


async def test_every_form_of_a_body() -> None:
    body = ask()
    raw = json.dumps(body)
    async with MockServer(**MANY) as mock, make(mock.base_url) as client:
        for form in (body, raw, raw.encode(), request(body), request(raw.encode())):
            assert (await client.send(form)).json()["object"] == "chat.completion"
        assert mock.stats.arrived == 5


async def test_the_conveniences() -> None:
    async with MockServer(**MANY) as mock, make(mock.base_url) as client:
        answer = await client.chat(MODEL, "Why?", system="Be brief.", max_tokens=5)
        assert answer.text
        assert answer.json()["usage"]["completion_tokens"] <= 5
        vectors = await client.embed("text-embedding-3-small", ["one", "two"], dimensions=8)
        assert [len(vector) for vector in vectors] == [8, 8]
        assert len(await client.embed("text-embedding-3-small", "one")) == 1
        response = await client.send({"model": MODEL, "input": "hi"}, "/v1/responses")
        assert response.text


async def test_nobody_waits_any_longer_for_a_first_answer_that_is_an_error() -> None:
    wrong = {"model": MODEL, "messages": [], "max_tokens": 1000}
    limits = Limit("requests", 600, MINUTE), Limit("tokens", 60_000, MINUTE)
    async with MockServer(tier="tier-1", latency=0.1) as mock, make(mock.base_url, limits=limits) as client:
        results = [result async for result in client.map([wrong] * 2)]
    assert [type(result.error) for result in results] == [RequestFailed] * 2
    assert now() < 0.9  # tokens are what is scarce: it would be a second


async def test_a_reply_without_embeddings_says_so() -> None:
    async with served(reply()) as (_, client):
        with pytest.raises(RequestFailed) as caught:
            await client.embed("text-embedding-3-small", "x")
    assert str(caught.value) == (
        "the service answered 200 no_embeddings: the reply holds no embeddings; use a model and a base URL that embed"
    )


@pytest.mark.parametrize("ordered", [True, False])
async def test_as_many_results_as_bodies(ordered: bool) -> None:
    async with MockServer(**MANY, latency=(0.01, 3), seed=2) as mock, make(mock.base_url) as client:
        results = [r async for r in client.map((ask(f"{n}") for n in range(500)), ordered=ordered)]
    assert sorted(r.index for r in results) == list(range(500))
    assert [str(r.index) for r in results] == texts(results)
    assert ([r.index for r in results] == list(range(500))) == ordered


async def test_results_come_as_they_are_ready_unless_they_are_to_be_in_order() -> None:
    acts: list[bytes | Act] = [reply(), after(9, reply()), after(1, reply()), after(2, reply())]
    for ordered, expected in ((False, [(0, 0), (2, 1), (3, 2), (1, 9)]), (True, [(0, 0), (1, 9), (2, 9), (3, 9)])):
        async with served(*acts) as (_, client):
            start = now()
            came = [(r.index, round(now() - start)) async for r in client.map(map(ask, "abcd"), ordered=ordered)]
            assert came == expected


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_endless_source_is_pulled_as_there_is_room(ordered: bool, asynchronous: bool) -> None:
    pulled = 0

    def bodies() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for n in count():
            pulled += 1
            yield ask(f"{n}")

    async def slowly() -> AsyncIterator[dict[str, Any]]:
        for body in bodies():
            await asyncio.sleep(0.001)
            yield body

    async with MockServer(**MANY, latency=(0.1, 2)) as mock, make(mock.base_url) as client:
        taken = 0
        results = client.map(slowly() if asynchronous else bodies(), ordered=ordered, window=7)
        async for _ in results:
            taken += 1
            assert pulled <= taken + 7
            if taken == 100:
                break
        await results.aclose()
        assert pulled <= 107


def test_results_in_order_are_handed_on_as_soon_as_may_be() -> None:
    order = InOrder[str]()
    assert [list(order.after(*each)) for each in ((2, "c"), (1, "b"), (0, "a"), (4, "e"))] == [
        [],
        [],
        ["a", "b", "c"],
        [],
    ]
    assert (len(order), list(order.rest())) == (1, ["e"])


async def test_slow_takers_hold_up_the_pulling() -> None:
    pulled = 0

    def bodies() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for n in range(50):
            pulled += 1
            yield ask(f"{n}")

    async with served(reply()) as (_, client):
        async for result in client.map(bodies(), window=5):
            await asyncio.sleep(100)
            assert pulled <= result.index + 6
    assert pulled == 50


async def test_leaving_early_cancels_what_is_on_the_way() -> None:
    async with served(reply(), after(100, reply())) as (server, client):
        results = client.map((ask(f"{n}") for n in count()), window=20)
        async for _ in results:
            break
        await results.aclose()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in tasks if task.get_name() == "map"]
        missing(client)  # sees that nothing is in flight
        seen = len(server.requests)
        await asyncio.sleep(50)
        assert len(server.requests) == seen


async def test_a_failing_request_is_a_result() -> None:
    async with MockServer(**MANY) as mock, make(mock.base_url) as client:
        bodies: list[Any] = [ask("a"), {"no": "model"}, b"{", ask("b", messages=5), ask("c"), 5]
        results = [r async for r in client.map(bodies, ordered=True)]
        kinds = [type(r.error).__name__ for r in results]
        assert kinds == ["NoneType", "RequestInvalid", "RequestInvalid", "RequestFailed", "NoneType", "RequestInvalid"]
        assert [r.request is None for r in results] == [False, True, True, False, False, True]
        assert mock.stats.arrived == 3
        with pytest.raises(BadRequest):
            results[1].unwrap()
        assert results[0].unwrap().status == 200


async def test_what_stops_everything_is_raised() -> None:
    async with MockServer(**MANY) as mock, make(mock.base_url, concurrency=10) as client:
        mock.fault("insufficient_quota:from=50")

        async def drain() -> int:
            return len([r async for r in client.map(ask(f"{n}") for n in range(1000))])

        with pytest.raises(QuotaExhausted):
            await drain()
        assert mock.stats.arrived <= 60


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError("mine")])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_source_that_fails_fails_the_map(error: BaseException, asynchronous: bool) -> None:
    def bodies() -> Iterator[dict[str, Any]]:
        yield ask("a")
        raise error

    async def later() -> AsyncIterator[dict[str, Any]]:
        for body in bodies():
            yield body

    async with served(reply()) as (_, client):
        with pytest.raises(type(error), match="mine"):
            async for _ in client.map(later() if asynchronous else bodies()):
                pass


async def test_nothing_to_do() -> None:
    async with served(reply()) as (_, client):
        assert [r async for r in client.map([])] == []
    with pytest.raises(ValueError, match=r"^window is 0; at least one request must have room$"):
        Many(asyncio.sleep, [], 0, 5)


async def test_a_map_that_is_cancelled_leaves_nothing_behind() -> None:
    async with served(after(100, reply())) as (_, client):

        async def drain() -> None:
            async for _ in client.map(ask(f"{n}") for n in count()):
                pass

        job = asyncio.create_task(drain())
        await asyncio.sleep(10)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        missing(client)


async def test_lanes_do_not_hold_each_other_up() -> None:
    async with MockServer(rpm=60, latency=0.1) as mock, make(mock.base_url, limits="tier-1") as client:
        bodies = [ask(f"{n}", model=model) for n in range(50) for model in (MODEL, "gpt-4.1-mini")]
        results = [r async for r in client.map(bodies)]
        assert all(r.reply for r in results)
        assert {lane.name for lane in client.snapshot()} == {MODEL, "gpt-4.1-mini"}


async def test_the_deadline_counts_the_wait_for_a_turn() -> None:
    one_a_minute = (Limit("requests", 1, MINUTE), Limit("tokens", 1000, MINUTE))
    async with served(reply(), limits=one_a_minute) as (server, client):
        await client.send(ask(), deadline=5)
        start = now()
        with pytest.raises(DeadlinePassed) as caught:
            await client.send(ask(), deadline=20)
        assert now() - start == 20
        assert str(caught.value).startswith("no answer within the deadline of 20 s: the lane stands at <Scheduler ")
        assert str(caught.value).endswith("; allow more time or send less at once")
        assert (len(server.requests), missing(client)["RPM"] < 1) == (1, True)


async def test_the_deadline_counts_the_reply_and_the_back_off() -> None:
    async with served(after(100, reply())) as (_, client):
        with pytest.raises(DeadlinePassed):
            await client.send(ask(), deadline=10)
        assert now() == 10
    async with served(reply({}, 503, {"Retry-After": "50"})) as (_, client):
        with pytest.raises(DeadlinePassed):
            await client.send(ask(), deadline=70)
        assert now() == 80


async def test_hours_of_waiting_trip_no_timeout() -> None:
    two_a_day = (Limit("requests", 60, MINUTE), Limit("requests", 48, 86_400.0), Limit("tokens", 1000, MINUTE))
    bounds = Bounds(connect=1, first_byte=1, between_bytes=1, reply=1)
    async with served(reply(), limits=two_a_day, bounds=bounds) as (server, client):
        results = [r async for r in client.map(ask(f"{n}") for n in range(60))]
        assert all(r.reply for r in results)
        assert (len(server.requests), client.count.retried) == (60, 0)
        assert now() > 3 * 3600


async def test_priorities_pass_others() -> None:
    ten_a_second = (Limit("requests", 600, MINUTE), Limit("tokens", 1_000_000, MINUTE))
    async with served(after(0.01, reply()), limits=ten_a_second) as (_, client):
        await client.send(ask())
        order: list[str] = []

        async def one(name: str, priority: float) -> None:
            await client.send(ask(name), priority=priority)
            order.append(name)

        await asyncio.gather(*[one("low", 5) for _ in range(1000)], *[one("high", -1) for _ in range(10)])
        assert order[:10].count("high") >= 9


async def test_how_it_stands_is_shown() -> None:
    async with served(reply()) as (_, client):
        assert repr(client) == "<Client <Scheduler no lanes yet>>"
        await client.send(ask())
        assert repr(client) == f"<Client <Scheduler {MODEL}: 0 waiting, 0 in flight>>"
        assert isinstance(client, Client)


@pytest.mark.parametrize("ordered", [True, False])
async def test_answers_on_the_way_are_received_before_the_map_raises(ordered: bool) -> None:
    empty = reply({"error": {"message": "?", "code": "insufficient_quota"}}, 429)
    acts: list[bytes | Act] = [reply(), *[after(9, reply())] * 4, after(5, empty), after(9, reply())]
    async with served(*acts, concurrency=7) as (server, client):
        statuses: list[int] = []

        async def drain() -> None:
            async for result in client.map((ask(f"{n}") for n in count()), ordered=ordered):
                statuses.append(result.unwrap().status)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(QuotaExhausted):
            await drain()
        assert statuses == [200] * client.count.succeeded == [200] * (len(server.requests) - 1)
        assert client.count.succeeded >= 6


async def test_a_client_is_opened_once_at_a_time() -> None:
    async with MockServer(**MANY) as mock:
        client = make(mock.base_url)
        async with client:
            with pytest.raises(RuntimeError) as caught:
                await client.__aenter__()
            assert str(caught.value) == "this client is open already; open it once, and use it wherever it is needed"
            assert (await client.send(ask())).status == 200
        async with client:
            assert (await client.send(ask())).status == 200


async def test_one_body_is_not_taken_for_many() -> None:
    async with make("http://127.0.0.1:1/v1") as client:
        for one in (ask(), json.dumps(ask()), json.dumps(ask()).encode(), request(ask())):
            with pytest.raises(BadRequest) as caught:
                client.map(one)  # type: ignore[arg-type]  # what a checker would say, too
            assert str(caught.value) == "map was given one body; give it several, as in a list, or use send()"


async def test_who_waits_for_a_turn_when_the_client_is_closed_is_told_so_at_once() -> None:
    async with MockServer(**MANY) as mock:
        async with make(mock.base_url, limits=(Limit("requests", 1, MINUTE),)) as client:
            await client.send(ask())
            waiting = [asyncio.create_task(client.send(ask())) for _ in range(3)]
            await asyncio.sleep(1)
        began = now()
        said = await asyncio.gather(*waiting, return_exceptions=True)
        assert now() == began
        assert {str(each) for each in said} == {
            "the client was closed before this request had its turn; open a new one"
        }
        assert [lane.waiting for lane in client.snapshot()] == [0]
        async with client:
            assert (await client.send(ask())).status == 200
