"""Who goes next: by priority, then by arrival; lanes keep out of each other's way; a slot is for the flight."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.headers import Observed


async def test_turns_come_by_priority_and_then_by_arrival() -> None:
    scheduler, order = await one_at_a_time(), list[str]()
    await gather(ask(scheduler, order, name, priority) for name, priority in [("a", 1), ("b", 0), ("c", 1), ("d", -1)])
    assert order == ["d", "b", "a", "c"]


async def test_one_more_urgent_than_the_head_goes_first_though_it_comes_later() -> None:
    scheduler, order = await one_at_a_time(), list[str]()

    async def late() -> None:
        await asyncio.sleep(0.5)
        await ask(scheduler, order, "late and urgent", -1)

    await gather([ask(scheduler, order, "early", 0), late()])
    assert order == ["late and urgent", "early"]


async def test_one_more_urgent_goes_at_once_if_it_fits_though_the_head_waits_for_more() -> None:
    loop, sent = asyncio.get_running_loop(), list[tuple[float, float]]()
    scheduler = Scheduler({"m": [Limit("tokens", 60_000, MINUTE)]}, patience=0.0)

    async def one(tokens: float, priority: float) -> None:
        async with scheduler.reserve("m", tokens=tokens, priority=priority) as turn:
            sent.append((tokens, loop.time()))
            turn.used()

    await one(50_000, 0)
    head = asyncio.create_task(one(40_000, 0))
    await asyncio.sleep(5)
    await one(500, -1)
    await head
    assert [tokens for tokens, _ in sent] == [50_000, 500, 40_000]
    assert sent[1][1] == 5.0


async def test_a_retry_keeps_its_place() -> None:
    scheduler, order = await one_at_a_time(), list[str]()

    async def with_retry() -> None:
        arrival = scheduler.arrive()
        async with scheduler.reserve("m", arrival=arrival) as turn:
            order.append("first try")
            await asyncio.sleep(0.1)
            turn.refused(Observed(retry_after=0.0), because_of_limit=False)
        async with scheduler.reserve("m", arrival=arrival) as turn:
            order.append("second try")
            turn.used()

    await gather([with_retry(), *(ask(scheduler, order, name, 0) for name in "bc")])
    assert order == ["first try", "second try", "b", "c"]


async def test_lanes_do_not_wait_for_each_other() -> None:
    loop, limits = asyncio.get_running_loop(), {"full": [Limit("requests", 1, MINUTE)]}
    scheduler = Scheduler({**limits, "free": [Limit("requests", 600, MINUTE)]}, concurrency=1)
    sent: list[tuple[str, float]] = []

    async def one(lane: str) -> None:
        async with scheduler.reserve(lane) as turn:
            sent.append((lane, loop.time()))
            turn.used()

    await gather(one(lane) for lane in ("full", "full", "free", "free"))
    assert [lane for lane, _ in sent] == ["free", "free", "full", "full"]
    assert [round(at, 1) for _, at in sent] == [
        0.0,
        0.0,
        1.0,
        62.0,
    ]  # the last of a limit's capacity fills a second later
    assert repr(scheduler) == "<Scheduler full: 0 waiting, 0 in flight; free: 0 waiting, 0 in flight>"


@pytest.mark.parametrize("concurrency", [1, 7, 50])
async def test_no_more_are_in_flight_than_allowed_and_no_fewer_while_some_wait(concurrency: int) -> None:
    scheduler = Scheduler({"m": [Limit("requests", 6000, MINUTE)]}, concurrency=concurrency, pace=1000.0)
    async with scheduler.reserve("m") as turn:
        turn.used()
    seen: list[int] = []

    async def one() -> None:
        async with scheduler.reserve("m") as turn:
            seen.append(scheduler.snapshot()[0].in_flight)
            await asyncio.sleep(1)
            turn.used()

    await gather(one() for _ in range(200))
    assert max(seen) == concurrency
    assert seen[concurrency:-concurrency] == [concurrency] * (200 - 2 * concurrency)


async def test_fewer_or_more_may_be_in_flight_from_now_on() -> None:
    scheduler = Scheduler({"m": [Limit("requests", 6000, MINUTE)]}, concurrency=10)
    lane, held = scheduler.lane("m"), asyncio.Event()

    async def one() -> None:
        async with scheduler.reserve("m"):
            await held.wait()

    tasks = [asyncio.create_task(one()) for _ in range(40)]
    await asyncio.sleep(5)
    assert (lane.in_flight, lane.waiting) == (10, 30)
    lane.resize(25)
    await asyncio.sleep(5)
    assert (lane.in_flight, lane.waiting) == (25, 15)
    lane.resize(5)
    held.set()
    await asyncio.gather(*tasks)
    assert (lane.in_flight, lane.waiting) == (0, 0)


async def test_a_slot_is_free_while_its_request_backs_off() -> None:
    scheduler, order = Scheduler({"m": [Limit("requests", 6000, MINUTE)]}, concurrency=1), list[str]()

    async def backs_off() -> None:
        async with scheduler.reserve("m") as turn:
            order.append("sent")
            turn.refused(Observed(retry_after=0.0), because_of_limit=False)
        await asyncio.sleep(30)
        order.append("back")

    await gather([backs_off(), ask(scheduler, order, "next", 0)])
    assert order == ["sent", "next", "back"]


async def one_at_a_time() -> Scheduler:
    """A scheduler whose only slot is taken for a second, so that a line forms."""
    scheduler = Scheduler({"m": [Limit("requests", 6000, MINUTE)]}, concurrency=1)

    async def first() -> None:
        async with scheduler.reserve("m") as turn:
            await asyncio.sleep(1)
            turn.used()

    holder = asyncio.create_task(first())
    await asyncio.sleep(0)
    holder.add_done_callback(lambda task: task.result())
    return scheduler


async def ask(scheduler: Scheduler, order: list[str], name: str, priority: float) -> None:
    async with scheduler.reserve("m", priority=priority) as turn:
        order.append(name)
        turn.used()


async def gather(coroutines: Iterable[object]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            assert asyncio.iscoroutine(coroutine)
            group.create_task(coroutine)
