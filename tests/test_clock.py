"""The virtual clock: what happens in one instant, what moves time, and what happens when nothing can."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
from fractions import Fraction

import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import Deadlock, Livelock
from ratelimit.testing import VirtualClockLoop, clock, run

Trace = list[tuple[float, str]]


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_two_days_of_ticks_pass() -> None:
    for _ in range(48 * 60):
        await asyncio.sleep(60)
    assert now() == 48 * 3600


async def test_every_async_test_runs_on_the_virtual_clock() -> None:
    assert type(asyncio.get_running_loop()) is VirtualClockLoop
    assert now() == 0.0


@pytest.mark.real_time
async def test_a_real_time_test_runs_on_the_ordinary_loop() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualClockLoop)


async def test_an_id_says_nothing_of_the_loop(request: pytest.FixtureRequest) -> None:
    assert request.node.name == "test_an_id_says_nothing_of_the_loop"


def test_time_starts_where_it_is_told_and_the_result_comes_back() -> None:
    async def main() -> float:
        await asyncio.sleep(0.5)
        return now()

    assert run(main(), start=1_700_000_000) == 1_700_000_000.5


@settings(max_examples=60, deadline=None)
@given(
    start=st.sampled_from([0.0, 0.1, 1e-300, 1e9, 2.0**40, 1e15]),
    delays=st.lists(
        st.floats(-10, 1e6) | st.sampled_from([0.0, 1.0, 1.0, math.ulp(1.0), 1 + math.ulp(1.0)]), max_size=40
    ),
)
def test_timers_fire_at_exactly_their_time_in_the_order_they_were_set(start: float, delays: list[float]) -> None:
    fired: list[tuple[float, int]] = []
    whens = [start + delay for delay in delays]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number, when in enumerate(whens):
            loop.call_at(when, lambda n: fired.append((loop.time(), n)), number)
        await asyncio.sleep(2e6)

    run(main(), start=start)
    assert fired == [(max(when, start), n) for when, n in sorted((when, n) for n, when in enumerate(whens))]


async def test_cancelled_timers_leave_no_trace() -> None:
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    timers = [loop.call_later(number, lambda: fired.append(loop.time())) for number in range(1000)]
    for number, timer in enumerate(timers):
        if number % 10:
            timer.cancel()
    await asyncio.sleep(2000)
    assert fired == list(range(0, 1000, 10))


async def test_cancelled_timers_do_not_pile_up() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    loop.call_later(60, int)  # ahead of them, or the heap would drop them from its top
    for _ in range(1000):
        loop.call_later(3600, int).cancel()
        await asyncio.sleep(0)
    assert len(loop._scheduled) < 200


def test_a_closed_loop_takes_no_timers() -> None:
    loop = VirtualClockLoop()
    loop.close()
    with pytest.raises(RuntimeError, match=r"^the virtual clock loop is closed; make a new one$"):
        loop.call_later(1, int)


async def test_timeouts_and_sleeps_read_as_a_trace() -> None:
    trace: Trace = []

    async def ticker() -> None:
        while True:
            await asyncio.sleep(1)
            trace.append((now(), "tick"))

    task = asyncio.create_task(ticker())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5):
            await asyncio.sleep(3600)
    trace.append((now(), "timed out"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 1.75)
    trace.append((now(), "gave up"))
    task.cancel()
    assert trace == [(1, "tick"), (2, "tick"), (2.5, "timed out"), (3, "tick"), (4, "tick"), (4.25, "gave up")]


@pytest.mark.parametrize(("rate", "period"), [(7, 3.3), (3.3, 7), (1, 0.1), (500, 60), (1.9, 1e3), (10_000, 86_400)])
async def test_aiolimiter_keeps_its_rate_exactly(rate: float, period: float) -> None:
    limiter = AsyncLimiter(rate, period)
    acquired = 3000 if rate < 3000 else 13_000
    await asyncio.gather(*(limiter.acquire() for _ in range(acquired)))
    expected = (acquired - Fraction(rate)) * Fraction(period) / Fraction(rate)
    assert now() == pytest.approx(float(expected), rel=1e-10)


async def test_a_few_timers_for_now_do_not_move_the_clock() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):
        done = loop.create_future()
        loop.call_later(0, done.set_result, None)
        await done
    assert now() == 0.0


async def test_a_timer_set_for_now_again_and_again_meets_a_later_instant() -> None:
    loop = asyncio.get_running_loop()
    moved = loop.create_future()
    calls: list[float] = []

    def again(begin: float, least: float) -> None:
        calls.append(loop.time())
        if loop.time() - begin >= least:
            moved.set_result(None)
        else:
            loop.call_at(begin, again, begin, least)

    again(0.0, 1e-9)
    await moved
    assert 1e-9 <= now() < 1e-6
    assert len(calls) < 50


def test_nothing_left_to_wait_for_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck() -> None:
        await asyncio.sleep(3)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait(), name="reader")
            group.create_task(asyncio.sleep(math.inf), name="writer")

    monkeypatch.setattr(threading, "active_count", lambda: 1)  # whatever threads other tests have left
    with pytest.raises(Deadlock) as caught:
        run(stuck())
    assert caught.value.tasks[0].endswith(f"({test_nothing_left_to_wait_for_is_a_deadlock.__name__}.<locals>.stuck)")
    assert str(caught.value) == (
        f"virtual time stands at 3 s: no timer is set and nothing is under way; waiting: {caught.value.tasks[0]}, "
        "reader (Event.wait), writer (sleep); give what they wait for a timeout, or use the ordinary loop if it comes "
        "from another process"
    )


def test_a_deadlock_names_no_more_than_ten_tasks() -> None:
    names = [f"task {number:02}" for number in range(12)]
    assert "waiting: " + ", ".join(names[:10]) + " and 2 more; give" in str(Deadlock(0.0, "why", names))
    assert "waiting: no task; give" in str(Deadlock(0.0, "why", []))


def test_tasks_that_never_wait_are_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_SPIN_PASSES", 1000)

    async def spin() -> None:
        asyncio.current_task().set_name("spinner")  # type: ignore[union-attr]  # a coroutine that runs has a task
        for _ in range(5000):
            await asyncio.sleep(0)

    with pytest.raises(Livelock) as caught:
        run(spin())
    assert str(caught.value) == (
        "virtual time stands at 0 s: tasks keep running without I/O and never wait; alive: spinner "
        "(test_tasks_that_never_wait_are_a_livelock.<locals>.spin); let the one that polls await an event or "
        "asyncio.sleep of more than 0 s"
    )


def test_moving_time_and_moving_data_are_no_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_SPIN_PASSES", 300)

    async def main() -> float:
        for _ in range(500):
            await asyncio.sleep(1)
        ours, theirs = socket.socketpair()
        (reader, near), (_, far) = await asyncio.gather(
            asyncio.open_connection(sock=ours), asyncio.open_connection(sock=theirs)
        )
        for _ in range(500):
            far.write(b"x")
            await reader.readexactly(1)
        near.close()
        far.close()
        await asyncio.sleep(1)
        return now()

    assert run(main()) == 501.0
