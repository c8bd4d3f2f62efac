"""The virtual clock and the real world: sockets, threads, child processes and signals, which no clock can stop."""

from __future__ import annotations

import asyncio
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web

from ratelimit.errors import Deadlock
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


@pytest.mark.parametrize("shell", [True, False])
def test_a_child_process_is_waited_for_and_forgotten(shell: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_JOB_SECONDS", 20)

    async def main() -> tuple[int, float, float]:
        if shell:
            child = await asyncio.create_subprocess_shell("exit 0")
        else:
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        async with asyncio.timeout(1):
            code, ended = await child.wait(), now()
        await asyncio.sleep(3)
        return code, ended, now()

    assert run(main()) == (0, 0.0, 3.0)


def test_the_clock_stands_while_the_executor_shuts_down() -> None:
    loop = VirtualClockLoop()
    blocked = threading.Event()
    call_when_blocked(loop, blocked.set)

    async def main() -> float:
        waiting = loop.run_in_executor(None, blocked.wait, 20)
        waiting.cancel()
        ticks = asyncio.create_task(asyncio.sleep(1))
        await loop.shutdown_default_executor()
        stood = now()
        await ticks
        return stood

    assert run_on(loop, main()) == 0.0


def test_a_signal_handler_is_reason_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    loop = VirtualClockLoop(patience=0.01)

    async def main() -> None:
        loop.add_signal_handler(signal.SIGUSR1, int)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"nothing has arrived from outside in 0\.01 s of real time"):
        run_on(loop, main())


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
            writer.transport.abort()
            blocked.set()
            thread.join()
            await asyncio.sleep(0)

    with theirs:
        return run_on(loop, main())


def test_grace_waits_for_a_peer_outside_before_each_move_of_the_clock() -> None:
    assert talk(VirtualClockLoop(grace=20), lambda sock: sock.send(b"x"), size=0) == 0.0


def test_without_grace_a_peer_outside_has_no_time() -> None:
    assert talk(VirtualClockLoop(), lambda sock: None, size=0) is None


def test_half_written_data_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_DRAIN_SECONDS", 20)

    # Most of it finds no room in the socket, which therefore waits to be writable.
    assert talk(VirtualClockLoop(), lambda sock: sock.send(b"x"), size=30_000_000) == 0.0


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
