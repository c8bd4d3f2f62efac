"""The façade for threads ends well: whoever waits is told, nobody waits for ever, and a fork is a new beginning."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ratelimit.admission.blocking import BlockingScheduler
from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import WaitedTooLong
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.headers import Observed, Reading

CLOSED = "this is closed; open a new one"


def one_a_minute() -> Scheduler:
    return Scheduler({"m": [Limit("requests", 1, MINUTE)]})


def outcome(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except RuntimeError as error:
        return str(error)


def test_closing_tells_whoever_waits_and_lets_whoever_has_a_turn_finish() -> None:
    scheduler = BlockingScheduler(one_a_minute)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> str:
        with scheduler.reserve("m"):
            inside.set()
            leave.wait()
        return "left in peace"

    def waits() -> object:
        with scheduler.reserve("m"):
            return "had a turn"

    with ThreadPoolExecutor(6) as threads:
        holder = threads.submit(outcome, hold)
        inside.wait()
        waiters = [threads.submit(outcome, waits) for _ in range(5)]
        while scheduler.snapshot()[0].waiting < len(waiters):
            pass
        scheduler.close()
        assert [waiter.result() for waiter in waiters] == [CLOSED] * 5
        leave.set()
        assert holder.result() == "left in peace"
    assert outcome(scheduler.snapshot) == CLOSED


def test_nobody_who_comes_while_it_closes_waits_for_ever() -> None:
    for _ in range(50):
        scheduler = BlockingScheduler(one_a_minute)
        start = threading.Barrier(5)

        def ask(scheduler: BlockingScheduler = scheduler, start: threading.Barrier = start) -> object:
            start.wait()
            while True:
                scheduler.snapshot()

        with ThreadPoolExecutor(4) as threads:
            askers = [threads.submit(outcome, ask) for _ in range(4)]
            start.wait()
            scheduler.close()
            assert [asker.result() for asker in askers] == [CLOSED] * 4


def test_a_scheduler_that_cannot_be_made_leaves_no_thread() -> None:
    def fail() -> Scheduler:
        raise ValueError("no")

    before = threading.enumerate()
    with pytest.raises(ValueError, match=r"^no$"):
        BlockingScheduler(fail)
    assert threading.enumerate() == before


def test_a_child_process_is_told_that_the_thread_is_not_there() -> None:
    with BlockingScheduler(one_a_minute) as scheduler:
        child = os.fork()
        if child == 0:  # nothing that raises here may run the rest of the tests a second time
            signal.alarm(5)
            told = outcome(scheduler.snapshot) == CLOSED
            scheduler.close()
            os._exit(0 if told else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert [lane.in_flight for lane in scheduler.snapshot()] == []


def test_a_turn_for_threads_takes_and_learns_what_one_for_tasks_does() -> None:
    limits = [Limit("requests", 60, MINUTE), Limit("tokens", 6_000, MINUTE)]
    with BlockingScheduler(lambda: Scheduler({"m": limits}, slack=0, pace=1e6)) as scheduler:
        with scheduler.reserve("m", tokens=100, requests=30) as turn:
            arrival = turn.arrival
            turn.observe(Observed((Reading("tokens", 3_000, 2_900, 2.0),)))
            turn.used()
        assert [limit.limit for limit in scheduler.snapshot()[0].limits] == [60, 3_000]
        with (
            pytest.raises(WaitedTooLong, match=r"^no turn in lane m within "),
            scheduler.reserve("m", requests=60, arrival=arrival, wait_at_most=0),
        ):
            pass
        with scheduler.reserve("m") as turn:
            turn.refused(Observed(retry_after=30), because_of_limit=False)
        with pytest.raises(WaitedTooLong, match=r"^no turn in lane m within "), scheduler.reserve("m", wait_at_most=0):
            pass
        assert scheduler.spent()["m"]["RPM"] == pytest.approx(31, abs=1)
        assert (scheduler.snapshot()[0].waiting, scheduler.snapshot()[0].in_flight) == (0, 0)


def test_a_function_for_threads_waits_for_its_turn() -> None:
    with BlockingScheduler(lambda: Scheduler({"m": [Limit("requests", 2, MINUTE)]}, slack=0, pace=1e6)) as scheduler:

        @scheduler.limited("m", wait_at_most=0)
        def ask(question: str) -> str:
            return question.upper()

        assert [ask("a"), ask("b")] == ["A", "B"]
        with pytest.raises(WaitedTooLong, match=r"^no turn in lane m within "):
            ask("c")
        assert ask.__name__ == "ask"
