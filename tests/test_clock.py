"""The virtual clock: what happens in one instant, what moves time, and what happens when nothing can."""

from __future__ import annotations

import asyncio
import math
import os
import runpy
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from fractions import Fraction
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from aiolimiter import AsyncLimiter
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import Deadlock, Livelock
from ratelimit.testing import VirtualClockLoop, clock, run

_T = TypeVar("_T")
Trace = list[tuple[float, str]]


def run_on(loop: VirtualClockLoop, main: Coroutine[Any, Any, _T]) -> _T:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def call_when_blocked(loop: VirtualClockLoop, act: Callable[[], object]) -> None:
    """Let `act` happen only once the loop is about to wait in real time."""
    poll = loop._poller.poll

    def acting(seconds: float) -> Any:
        if seconds:
            act()
        return poll(seconds)

    loop._poller.poll = acting  # type: ignore[method-assign]  # the one seam through which the loop waits


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
        await asyncio.wait_for(asyncio.Event().wait(), 1.5)
    trace.append((now(), "gave up"))
    task.cancel()
    assert trace == [(1, "tick"), (2, "tick"), (2.5, "timed out"), (3, "tick"), (4, "tick"), (4, "gave up")]


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

    def again(begin: float, least: float) -> None:
        if loop.time() - begin >= least:
            moved.set_result(None)
        else:
            loop.call_at(begin, again, begin, least)

    again(0.0, 1e-9)
    await moved
    assert 1e-9 <= now() < 1e-6


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


def test_with_a_listening_socket_the_outside_world_gets_its_time_first() -> None:
    async def serve() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        async with server:
            await server.serve_forever()

    loop = VirtualClockLoop(patience=0.01)
    waits: list[str] = []
    call_when_blocked(loop, lambda: waits.append("waited"))
    with pytest.raises(Deadlock) as caught:
        run_on(loop, serve())
    assert waits == ["waited"]
    assert "no timer is set and nothing has arrived from outside in 0.01 s of real time; waiting: " in str(caught.value)


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


def test_the_clock_stands_while_a_thread_works() -> None:
    loop = VirtualClockLoop()
    blocked = threading.Event()
    call_when_blocked(loop, blocked.set)

    async def main() -> tuple[bool, float]:
        async with asyncio.timeout(1):
            return await asyncio.to_thread(blocked.wait, 20), now()

    assert run_on(loop, main()) == (True, 0.0)


def test_the_clock_goes_on_when_the_thread_has_ended() -> None:
    async def main() -> float:
        await asyncio.to_thread(int)
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        await asyncio.sleep(1)
        return now()

    assert run(main()) == 1.0


def test_a_thread_that_waits_for_the_clock_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_JOB_SECONDS", 0.01)
    release = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().call_later(1, release.set)
        await asyncio.to_thread(release.wait, 20)

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        with pytest.raises(Deadlock) as caught:
            runner.run(main())
        release.set()
    assert "0 s: a thread or child process has not ended in 0.01 s of real time; waiting: " in str(caught.value)


def test_a_child_process_is_waited_for() -> None:
    async def main() -> tuple[int, float]:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        async with asyncio.timeout(1):
            return await child.wait(), now()

    assert run(main()) == (0, 0.0)


def test_a_call_from_a_thread_ends_a_wait_without_timers() -> None:
    loop = VirtualClockLoop(patience=20)
    blocked = threading.Event()
    call_when_blocked(loop, blocked.set)

    async def main() -> str:
        arrived: asyncio.Future[str] = loop.create_future()

        def outside() -> None:
            blocked.wait(20)
            loop.call_soon_threadsafe(arrived.set_result, "arrived")

        threading.Thread(target=outside).start()
        return await arrived

    assert run_on(loop, main()) == "arrived"


def talk(loop: VirtualClockLoop, outside: Callable[[socket.socket], object], size: int) -> float | None:
    """Send `size` bytes to another thread, where `outside` acts once the loop waits; return when a byte came back."""
    ours, theirs = socket.socketpair()
    blocked = threading.Event()
    call_when_blocked(loop, blocked.set)

    def peer() -> None:
        blocked.wait(20)
        outside(theirs)

    async def main() -> float | None:
        thread = threading.Thread(target=peer)
        thread.start()
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(bytes(size))
        try:
            async with asyncio.timeout(5):
                await reader.readexactly(1)
            return now()
        except TimeoutError:
            return None
        finally:
            writer.close()
            blocked.set()
            thread.join()

    with theirs:
        return run_on(loop, main())


def test_grace_waits_for_a_peer_outside_before_each_move_of_the_clock() -> None:
    assert talk(VirtualClockLoop(grace=20), lambda sock: sock.send(b"x"), size=0) == 0.0


def test_without_grace_a_peer_outside_has_no_time() -> None:
    assert talk(VirtualClockLoop(), lambda sock: None, size=0) is None


def test_half_written_data_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_DRAIN_SECONDS", 20)

    def read_all(sock: socket.socket) -> None:
        left = 3_000_000
        while left:
            left -= len(sock.recv(1 << 20))
            if left == 0:
                sock.send(b"x")

    loop = VirtualClockLoop(grace=20)
    assert talk(loop, read_all, size=3_000_000) == 0.0


async def http_trace(requests: int) -> Trace:
    """Serve and ask over loopback, in two rounds so that connections are reused; each reply takes hours."""
    trace: Trace = []

    async def handle(request: web.Request) -> web.Response:
        number = int(await request.text())
        trace.append((now(), f"{number} asked"))
        await asyncio.sleep(3600 * (number % 5) + number / 8)
        return web.Response(text=str(number))

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=86_400)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as session:

        async def ask(number: int) -> None:
            async with session.post(url, data=str(number)) as reply:
                trace.append((now(), f"{await reply.text()} answered"))

        for _ in range(2):
            await asyncio.gather(*(ask(number) for number in range(requests)))
    await runner.cleanup()
    return trace


def test_a_thousand_http_requests_at_once_take_exactly_their_time_and_do_so_again() -> None:
    trace = run(http_trace(1000))
    spans = [3600 * (number % 5) + number / 8 for number in range(1000)]
    rounds = [(0.0, number) for number in range(1000)] + [(max(spans), number) for number in range(1000)]
    assert sorted(trace) == sorted(
        [(begin, f"{number} asked") for begin, number in rounds]
        + [(begin + spans[number], f"{number} answered") for begin, number in rounds]
    )
    assert run(http_trace(1000)) == trace


async def test_large_bodies_cross_in_one_instant_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(8_000_000))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        ticks = asyncio.create_task(asyncio.sleep(1))
        writer.write(bytes(8_000_000))
        assert len(await reader.read(-1)) == 8_000_000
        assert now() == 0.0
        writer.close()
        await ticks


def test_the_clock_works_where_the_platform_has_neither_epoll_nor_sched_yield(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    monkeypatch.delattr(os, "sched_yield", raising=False)
    portable = runpy.run_path(clock.__file__)["VirtualClockLoop"]
    loop = portable()
    assert type(loop._poller).__base__ is selectors.SelectSelector
    run_on(loop, test_large_bodies_cross_in_one_instant_both_ways())
    assert loop.time() == 1.0
    assert loop._poller.writers == 0
