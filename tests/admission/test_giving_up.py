"""Who gives up leaves no trace: no capacity, no slot, no place in the line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.admission.events import Event, Granted
from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import WaitedTooLong
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.testing.clock import run

TPM, SLOTS, END = 6_000, 3, 2_000.0


class Caller(NamedTuple):
    """One who asks for a turn, and perhaps is cancelled: at a time, and so many steps of the loop into it."""

    asks_at: float
    tokens: float
    stays: float
    ends: str
    cancelled_at: float | None
    steps: int


times = st.integers(0, 120).map(lambda half: half / 2)
callers = st.builds(
    Caller,
    asks_at=times,
    tokens=st.integers(1, 30).map(lambda n: n * 100),
    stays=st.sampled_from([0.0, 0.5, 3.0]),
    ends=st.sampled_from(["used", "unsent", "nothing said"]),
    cancelled_at=st.none() | times,
    steps=st.integers(0, 8),
)


class Recount:
    """The bucket by the book: a level topped up at each look, of which only what was kept is taken."""

    def __init__(self, capacity: float, rate: float) -> None:
        self.capacity, self.rate = capacity, rate
        self.kept: list[tuple[float, float]] = []

    def level(self, now: float) -> float:
        level, looked = self.capacity, 0.0
        for at, tokens in sorted(self.kept):
            level, looked = min(self.capacity, level + (at - looked) * self.rate) - tokens, at
        return min(self.capacity, level + (now - looked) * self.rate)


@settings(max_examples=60, deadline=None)
@given(st.lists(callers, min_size=20, max_size=40))
def test_whoever_is_cancelled_wherever_nothing_is_lost(crowd: list[Caller]) -> None:
    run(_assert_nothing_is_lost(crowd))


async def _assert_nothing_is_lost(crowd: list[Caller]) -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]}, concurrency=SLOTS, patience=0.0)
    lane = scheduler.lane("m")
    book = Recount(TPM - TPM / MINUTE, TPM / MINUTE)

    async def ask(caller: Caller) -> None:
        async with scheduler.reserve("m", tokens=caller.tokens) as turn:
            assert lane.in_flight <= SLOTS
            if caller.ends != "unsent":
                book.kept.append((loop.time(), caller.tokens))
            try:
                await asyncio.sleep(caller.stays)
            finally:
                if caller.ends == "used":
                    turn.used()
                elif caller.ends == "unsent":
                    turn.unsent()

    tasks: list[asyncio.Task[None]] = []
    for caller in crowd:
        _start(loop, caller, ask, tasks)
    await asyncio.sleep(END)
    assert len(tasks) == len(crowd)
    assert all(task.done() for task in tasks)
    assert not [task for task in tasks if not task.cancelled() and task.exception()]
    assert (lane.waiting, lane.in_flight, lane._queue, lane._head, lane._dispatcher) == (0, 0, [], None, None)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert lane.ledger.quota.buckets[0].level(END) == pytest.approx(book.level(END))
    last = max((at for at, _ in book.kept), default=0.0)
    assert last < 600  # so much was asked for; nobody had to wait for what was lost


def _start(
    loop: asyncio.AbstractEventLoop,
    caller: Caller,
    ask: Callable[[Caller], object],
    tasks: list[asyncio.Task[None]],
) -> None:
    def begin() -> None:
        coroutine = ask(caller)
        assert asyncio.iscoroutine(coroutine)
        task = loop.create_task(coroutine)
        tasks.append(task)
        if caller.cancelled_at is not None:
            loop.call_at(max(caller.cancelled_at, caller.asks_at), step, task, caller.steps)

    def step(task: asyncio.Task[None], left: int) -> None:
        if left:
            loop.call_soon(step, task, left - 1)
        else:
            task.cancel()

    loop.call_at(caller.asks_at, begin)


async def test_levels_after_cancellations_are_those_of_the_recount_at_any_time() -> None:
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]}, patience=0.0)
    bucket = scheduler.lane("m").ledger.quota.buckets[0]
    tasks = [asyncio.create_task(_hold(scheduler, 5_000)) for _ in range(5)]
    await asyncio.sleep(1)
    assert bucket.level(1.0) == pytest.approx(1_000)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert bucket.level(1.0) == pytest.approx(1_000)  # four never had anything; the fifth may have been sent
    assert repr(scheduler) == "<Scheduler m: 0 waiting, 0 in flight>"
    assert scheduler.lane("m").waiting_for is None


async def test_when_the_head_gives_up_the_next_goes_at_once_if_it_fits() -> None:
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]}, patience=0.0)
    async with scheduler.reserve("m", tokens=TPM - 1_000) as turn:
        turn.used()
    head = asyncio.create_task(_hold(scheduler, 3_000))
    await asyncio.sleep(0)
    small = asyncio.create_task(_hold(scheduler, 500))
    await asyncio.sleep(6)
    assert scheduler.snapshot()[0].waiting == 2
    head.cancel()
    await asyncio.sleep(0.5)
    assert repr(scheduler) == "<Scheduler m: 0 waiting, 1 in flight>"
    small.cancel()
    await asyncio.gather(head, small, return_exceptions=True)


async def test_one_cancelled_just_as_its_turn_comes_gives_back_all_of_it() -> None:
    def cancel(event: Event) -> None:
        if isinstance(event, Granted) and event.tokens == 3_000:
            task.cancel()  # it has its turn and has not run since

    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]}, concurrency=1, patience=0.0, observer=cancel)
    async with scheduler.reserve("m", tokens=1_000) as turn:
        task = asyncio.create_task(_hold(scheduler, 3_000))
        await asyncio.sleep(0)
        turn.used()
    with pytest.raises(asyncio.CancelledError):
        await task
    bucket = scheduler.lane("m").ledger.quota.buckets[0]
    now = asyncio.get_running_loop().time()
    assert bucket.level(now) == pytest.approx(bucket.capacity - 1_000 + 100 * now)
    assert repr(scheduler) == "<Scheduler m: 0 waiting, 0 in flight>"


async def test_places_given_up_are_swept_up_while_the_head_waits_on() -> None:
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]})
    lane = scheduler.lane("m")
    head = asyncio.create_task(_hold(scheduler, TPM))
    await asyncio.sleep(0)
    for _ in range(50):
        crowd = [asyncio.create_task(_hold(scheduler, 1_000)) for _ in range(100)]
        await asyncio.sleep(0)
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    assert lane.waiting == 1
    assert len(lane._queue) < 200
    head.cancel()
    await asyncio.gather(head, return_exceptions=True)


async def test_waiting_at_most_so_long_says_for_what_and_what_to_do() -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler({"gpt-4o": [Limit("tokens", TPM, MINUTE)]})
    async with scheduler.reserve("gpt-4o", tokens=TPM - 100) as turn:
        turn.used()
    others = [asyncio.create_task(_hold(scheduler, 1_000, "gpt-4o")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(WaitedTooLong) as gone:
        async with scheduler.reserve("gpt-4o", tokens=1_000, wait_at_most=2.5):
            pytest.fail("there is nothing to be had within 2.5 s")
    assert loop.time() == 2.5
    assert str(gone.value) == (
        "no turn in lane gpt-4o within 2.5 s: it waits for TPM, 2 others with it; "
        "raise wait_at_most, lower its priority number, or send less at once"
    )
    assert scheduler.snapshot()[0].waiting == 2
    await asyncio.sleep(20)
    assert repr(scheduler) == "<Scheduler gpt-4o: 0 waiting, 2 in flight>"
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_not_waiting_at_all_takes_what_is_there() -> None:
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]})
    async with scheduler.reserve("m", tokens=1_000, wait_at_most=0.0) as turn:
        turn.used()
    with pytest.raises(WaitedTooLong):
        async with scheduler.reserve("m", tokens=TPM, wait_at_most=0.0):
            pytest.fail("there is less than that")
    assert asyncio.get_running_loop().time() == 0.0


async def test_a_turn_in_time_is_not_ended_by_what_it_might_have_waited() -> None:
    scheduler = Scheduler({"m": [Limit("tokens", TPM, MINUTE)]})
    async with scheduler.reserve("m", tokens=TPM, wait_at_most=1.5) as turn:
        await asyncio.sleep(10)
        turn.used()
    assert turn.how == "used"


async def _hold(scheduler: Scheduler, tokens: float, lane: str = "m") -> None:
    async with scheduler.reserve(lane, tokens=tokens):
        await asyncio.sleep(1_000)
