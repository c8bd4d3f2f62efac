"""Many who wait cost little: in memory, per admission, and nothing at all while there is nothing to do."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from ratelimit.admission.ledger import LocalLedger
from ratelimit.admission.scheduler import Scheduler
from ratelimit.admission.ticket import Ticket
from ratelimit.limits.bucket import DAY, MINUTE, Limit

CROWD = 100_000


async def test_a_hundred_thousand_who_wait_take_a_kilobyte_each_beyond_their_tasks() -> None:
    scheduler = Scheduler({"m": [Limit("requests", 60, MINUTE), Limit("tokens", 60_000, MINUTE)]}, concurrency=1)
    loop = asyncio.get_running_loop()

    async def queue() -> None:
        async with scheduler.reserve("m", tokens=800) as turn:
            await asyncio.sleep(DAY)
            turn.used()

    async def just_wait() -> None:
        await loop.create_future()

    assert await memory_of(queue, CROWD) - await memory_of(just_wait, CROWD // 10) <= 1024
    assert scheduler.snapshot()[0].waiting == 0


async def memory_of(waiter: Callable[[], Awaitable[None]], crowd: int) -> float:
    """Return what each of so many tasks takes that has come to where it waits."""

    async def one() -> None:
        await waiter()

    gc.collect()
    gc.disable()  # there is nothing to collect, and much to look through
    tracer = sys.gettrace()
    sys.settrace(None)  # coverage has every coroutine keep a frame of its own
    tracemalloc.start()
    tasks = [asyncio.create_task(one()) for _ in range(crowd)]
    await asyncio.sleep(0.1)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sys.settrace(tracer)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gc.enable()
    return taken / crowd


@pytest.mark.parametrize("crowd", [2_000, 30_000])
async def test_an_admission_costs_a_few_comparisons_however_many_wait(
    crowd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"compared": 0, "asked": 0, "sent": 0}
    compare, reserve = Ticket.__lt__, LocalLedger.reserve

    def counted_compare(self: Ticket, other: Ticket) -> bool:
        counts["compared"] += 1
        return compare(self, other)

    async def counted_reserve(self: LocalLedger, cost: dict[str, float]) -> object:
        counts["asked"] += 1
        return await reserve(self, cost)

    scheduler = Scheduler({"m": [Limit("requests", 600, MINUTE)]}, concurrency=CROWD)

    async def one() -> None:
        async with scheduler.reserve("m") as turn:
            counts["sent"] += 1
            turn.used()

    tasks = [asyncio.create_task(one()) for _ in range(crowd)]
    await asyncio.sleep(70)  # the opening burst is over
    monkeypatch.setattr(Ticket, "__lt__", counted_compare)
    monkeypatch.setattr(LocalLedger, "reserve", counted_reserve)
    counts.update(compared=0, asked=0, sent=0)
    await asyncio.sleep(20)
    assert counts["sent"] in {200, 201}
    assert counts["compared"] <= 2 * crowd.bit_length() * counts["sent"]
    assert counts["asked"] <= 3 * counts["sent"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_wait_of_hours_wakes_nobody_up() -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler({"m": [Limit("requests", 10, DAY)]})
    passes, run_once = 0, loop._run_once  # type: ignore[attr-defined]  # what the loop is made of

    def counted() -> None:
        nonlocal passes
        passes += 1
        run_once()

    async def one() -> None:
        async with scheduler.reserve("m") as turn:
            turn.used()

    tasks = [asyncio.create_task(one()) for _ in range(12)]
    await asyncio.sleep(60)
    assert scheduler.snapshot()[0].waiting == 2
    loop._run_once = counted  # type: ignore[attr-defined]
    await asyncio.sleep(2 * 3600)
    assert passes <= 3  # our own sleep
    await asyncio.sleep(3600)
    assert scheduler.snapshot()[0].waiting == 1
    await asyncio.gather(*tasks)


async def test_nothing_is_left_running_once_nobody_waits() -> None:
    scheduler = Scheduler({"m": [Limit("requests", 60, MINUTE)]}, concurrency=2)

    async def one() -> None:
        async with scheduler.reserve("m", wait_at_most=3600) as turn:
            await asyncio.sleep(1)
            turn.used()

    await asyncio.gather(*(one() for _ in range(10)))
    assert asyncio.all_tasks() == {asyncio.current_task()}
    timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # what the loop would wake up for
    assert [timer for timer in timers if not timer.cancelled()] == []
