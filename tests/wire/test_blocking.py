"""The client for threads: the same calls, from any number of them, leaving nothing behind when interrupted."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from wire_rig import MODEL, STREAM, Raw, after, ask, make, reply, then_close

from ratelimit.admission.blocking import Background, BlockingScheduler
from ratelimit.admission.events import Event
from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import AlreadySettled, QuotaExhausted, RequestInvalid
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.testing.mock import MockServer
from ratelimit.wire.blocking import BlockingClient

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class Served:
    """A server on a loop of its own, for clients that block."""

    def __init__(self, server: MockServer | Raw) -> None:
        self.background = Background()
        self.server = server

    def __enter__(self) -> str:
        self.background.run(self.server.__aenter__())
        return self.server.base_url if isinstance(self.server, MockServer) else self.server.url

    def __exit__(self, *_: object) -> None:
        self.background.run(self.server.__aexit__(None, None, None))
        self.background.close()


@pytest.fixture
def url() -> Iterator[str]:
    with Served(MockServer(rpm=6_000_000, tpm=600_000_000, rpd=60_000_000)) as found:
        yield found


def test_the_same_calls(url: str) -> None:
    with BlockingClient(make(url)) as client:
        assert client.send(ask()).status == 200
        assert client.chat(MODEL, "hi", max_tokens=3).text
        assert len(client.embed("text-embedding-3-small", ["a", "b"])) == 2
        with client.stream(ask(stream=True)) as pieces:
            assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
        assert client.count.succeeded == 4
        assert [lane.name for lane in client.snapshot()] == [MODEL, "text-embedding-3-small"]
        assert repr(client).startswith(f"<BlockingClient <Scheduler {MODEL}: 0 waiting, 0 in flight")
        with pytest.raises(RequestInvalid):
            client.send({})


@pytest.mark.parametrize("ordered", [True, False])
def test_many_are_pulled_as_there_is_room_on_the_callers_thread(url: str, ordered: bool) -> None:
    pulled = 0

    def bodies() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for n in count():
            assert threading.current_thread() is threading.main_thread()
            pulled += 1
            yield ask(f"{n}")

    with BlockingClient(make(url)) as client:
        results = client.map(bodies(), ordered=ordered, window=7)
        indexes = []
        for result in results:
            result.unwrap()
            indexes.append(result.index)
            assert pulled <= len(indexes) + 7
            if len(indexes) == 50:
                break
        results.close()  # type: ignore[attr-defined]  # a generator, promised as an iterator
        if ordered:
            assert indexes == list(range(50))
        finite = [r.index for r in client.map(ask(f"{n}") for n in range(30))]
        assert sorted(finite) == list(range(30))
        assert list(client.map([])) == []


EMPTY = reply({"error": {"message": "?", "code": "insufficient_quota"}}, 429)


@pytest.mark.parametrize("ordered", [True, False])
def test_answers_on_the_way_are_received_before_the_map_raises(ordered: bool) -> None:
    server = Raw(reply(), after(0.2, reply()), EMPTY, after(0.2, reply()))
    with Served(server) as url, BlockingClient(make(url, concurrency=4)) as client:
        statuses: list[int] = []

        def drain() -> None:
            for result in client.map((ask(f"{n}") for n in count()), ordered=ordered):
                statuses.append(result.unwrap().status)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(QuotaExhausted):
            drain()
        assert statuses == [200] * (len(server.requests) - 1)


def test_what_stops_everything_is_raised() -> None:
    empty = EMPTY
    with Served(Raw(empty)) as url, BlockingClient(make(url)) as client, pytest.raises(QuotaExhausted):
        list(client.map(ask(f"{n}") for n in range(100)))


def test_a_failing_source_leaves_nothing_on_the_way() -> None:
    def bodies() -> Iterator[dict[str, Any]]:
        yield ask("a")
        raise KeyboardInterrupt

    with Served(Raw(after(60, reply()))) as url, BlockingClient(make(url)) as client:
        with pytest.raises(KeyboardInterrupt):
            list(client.map(bodies()))
        assert [lane.in_flight for lane in client.snapshot()] in ([], [0])


def test_leaving_a_stream_early() -> None:
    with (
        Served(Raw(then_close(EVENTS + STREAM[:80], STREAM[80:], pause=60))) as url,
        BlockingClient(make(url)) as client,
    ):
        with client.stream(ask(stream=True)) as pieces:
            assert next(pieces) == STREAM[:80]
        assert [lane.in_flight for lane in client.snapshot()] in ([], [0])


def test_twenty_threads(url: str) -> None:
    with BlockingClient(make(url)) as client, ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda n: client.send(ask(f"{n}")).status, range(200)))
        assert answers == [200] * 200
        assert client.count.succeeded == 200


def test_a_client_is_opened_before_it_sends_and_not_after_it_is_closed(url: str) -> None:
    client = BlockingClient(make(url))
    with pytest.raises(RuntimeError, match=r"^open the client with `with` before sending$"):
        client.send(ask())
    with client:
        client.send(ask())
    client.close()
    with pytest.raises(RuntimeError, match=r"^open the client with `with` before sending$"):
        client.send(ask())
    with pytest.raises(RuntimeError, match=r"^a client is opened once; make a new one$"), client:
        pass


@pytest.mark.parametrize("ordered", [True, False])
def test_a_source_that_fails_is_raised_behind_the_results_of_what_was_on_the_way(url: str, ordered: bool) -> None:
    def bodies() -> Iterator[dict[str, Any]]:
        for n in range(5):
            yield ask(f"{n}")
        raise OSError("the file is gone")

    indexes: list[int] = []
    with BlockingClient(make(url)) as client:
        with pytest.raises(OSError, match=r"^the file is gone$"):
            indexes.extend(result.index for result in client.map(bodies(), ordered=ordered))
        assert client.count.succeeded == 5
    assert (indexes if ordered else sorted(indexes)) == [0, 1, 2, 3, 4]


def test_results_are_handed_on_while_a_slow_source_has_more(url: str) -> None:
    answered = threading.Event()

    def bodies() -> Iterator[dict[str, Any]]:
        yield ask("first")
        while not client.count.succeeded:
            pass
        client._loop.call(lambda: None)  # by then its result is here, too
        yield ask("second")
        assert answered.is_set()
        yield ask("third")

    with BlockingClient(make(url)) as client:
        for result in client.map(bodies()):
            result.unwrap()
            answered.set()
        assert client.count.succeeded == 3


def test_what_cannot_be_mapped_is_refused_before_anything_is_pulled(url: str) -> None:
    client = BlockingClient(make(url))
    with pytest.raises(RuntimeError, match=r"^open the client with `with` before sending$"):
        client.map([ask()])
    with client:
        with pytest.raises(ValueError, match=r"^window is 0; at least one request must have room$"):
            client.map([ask()], window=0)
        with pytest.raises(
            RequestInvalid, match=r"^map was given one body; give it several, as in a list, or use send\(\)$"
        ):
            client.map(ask())


WAITS_FOR_ITSELF = "this would wait for the thread it is called on; call it from another one, not from an observer"


def test_an_observer_that_asks_the_client_is_told_that_it_would_wait_for_itself(url: str) -> None:
    told: list[str] = []

    def observer(_: Event) -> None:
        for ask_it in (blocking.snapshot, blocking.close):
            try:
                ask_it()
            except RuntimeError as error:
                told.append(str(error))

    client = make(url)
    client.sender.gate.scheduler.audience.__init__([observer])  # type: ignore[misc]  # as open() would
    with BlockingClient(client) as blocking:
        assert blocking.send(ask()).status == 200
        assert set(told) == {WAITS_FOR_ITSELF}


def _left(client: BlockingClient, scheduler: BlockingScheduler) -> None:
    """Leave a map, a stream and a turn half done, in a cycle, for the collector to find."""
    results = client.map(ask(f"{n}") for n in count())
    next(results)
    stream = client.stream(ask(stream=True))
    next(stream.__enter__())
    turn = scheduler.reserve("m")
    turn.__enter__()
    kept: list[Any] = [results, stream, turn]
    kept.append(kept)


def test_what_is_left_half_done_may_become_garbage_on_the_thread_of_the_loop(url: str) -> None:
    with (
        BlockingClient(make(url)) as client,
        BlockingScheduler(lambda: Scheduler({"m": [Limit("requests", 60, MINUTE)]})) as scheduler,
    ):
        gc.disable()
        try:
            _left(client, scheduler)
            client._loop.submit(_collect()).result(5)
        finally:
            gc.enable()
        assert [lane.in_flight for lane in client.snapshot()] == [0]
        assert [lane.in_flight for lane in scheduler.snapshot()] == [0]


async def _collect() -> None:
    gc.collect()
    await asyncio.sleep(0)
    me = asyncio.current_task()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not me), return_exceptions=True)


@pytest.mark.parametrize("moment", ["waiting", "granted"])
def test_an_interrupted_thread_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    limits = [Limit("requests", 60, MINUTE)]
    with BlockingScheduler(lambda: Scheduler({"m": limits}, slack=0, pace=100)) as scheduler:
        loop = scheduler._background
        if moment == "waiting":
            with scheduler.reserve("m") as turn:
                turn.used()
            loop.call(lambda: scheduler._scheduler.lane("m").resize(0))
        real = Background.run

        def interrupted(self: Background, work: Coroutine[Any, Any, Any]) -> Any:
            """Ctrl-C while a turn is waited for, or in the moment it has been granted."""
            if getattr(work, "__name__", "") != "__aenter__":
                return real(self, work)
            future: Future[Any] = self.submit(work)
            if moment == "granted":
                future.result()
            self.cancel([future])
            raise KeyboardInterrupt

        monkeypatch.setattr(Background, "run", interrupted)
        with pytest.raises(KeyboardInterrupt), scheduler.reserve("m"):
            pass
        lane = loop.call(lambda: scheduler._scheduler.lane("m"))
        assert (lane.waiting, lane.in_flight) == (0, 0)


def test_turns_end_as_they_are_told() -> None:
    ends: list[tuple[str, Callable[[Any], None]]] = [
        ("used", lambda turn: turn.used(tokens=5)),
        ("unsent", lambda turn: turn.unsent()),
        ("refused", lambda turn: turn.refused()),
        ("failed", lambda turn: turn.failed()),
        ("unknown", lambda turn: turn.unknown()),
    ]
    limits = [Limit("requests", 60_000, MINUTE), Limit("tokens", 60_000, MINUTE)]
    for how, end in ends:
        with BlockingScheduler(lambda: Scheduler({"m": limits})) as scheduler:
            with scheduler.reserve("m", tokens=10) as turn:
                end(turn)
                assert turn._turn.how == how
                with pytest.raises(AlreadySettled):
                    turn.used()
            with scheduler.reserve("m", tokens=10):
                pass
            assert [lane.in_flight for lane in scheduler.snapshot()] == [0]


def test_a_closed_background_says_so() -> None:
    before = set(threading.enumerate())  # a process may have a background of its own
    background = Background()
    background.close()
    background.close()
    with pytest.raises(RuntimeError, match=r"^this is closed; open a new one$"):
        background.run(asyncio.sleep(0))
    assert set(threading.enumerate()) <= before


def test_ctrl_c_takes_a_waiting_call_out_of_its_lane() -> None:
    with Served(Raw(after(60, reply()))) as url, BlockingClient(make(url)) as client:
        main = threading.get_ident()
        threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            client.send(ask())
        assert [lane.in_flight for lane in client.snapshot()] == [0]
        assert client.count.attempts == 1


def test_a_window_in_which_nothing_has_room() -> None:
    with (
        Served(Raw(reply())) as url,
        BlockingClient(make(url)) as client,
        pytest.raises(ValueError, match=r"^window is 0; at least one request must have room$"),
    ):
        client.map([ask("a")], window=0)


def test_results_that_wait_for_their_turn_take_room() -> None:
    pulled = 0

    def bodies() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for n in range(60):
            pulled += 1
            yield ask(f"{n}")

    with Served(Raw(reply(), after(0.3, reply()), reply())) as url, BlockingClient(make(url)) as client:
        taken = 0
        for _ in client.map(bodies(), ordered=True, window=5):
            taken += 1
            assert pulled <= taken + 5
        assert (taken, pulled) == (60, 60)
