"""A turn is ended once, by what is known of its request; a lane says who waits, and for what."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable

import pytest

from ratelimit.admission.events import Event, Waiting
from ratelimit.admission.ledger import LocalLedger
from ratelimit.admission.log import Log
from ratelimit.admission.scheduler import LaneStatus, LimitStatus, Scheduler
from ratelimit.admission.turn import Turn
from ratelimit.errors import AlreadySettled, BadClient
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.headers import Observed, Reading
from ratelimit.limits.quota import Cost, Hold
from ratelimit.testing.clock import run

RPM, TPM = 600, 60_000
LIMITS = (Limit("requests", RPM, MINUTE), Limit("tokens", TPM, MINUTE))
FULL = {"RPM": RPM - 10, "TPM": TPM - 1_000}  # less what is kept back: a second's refill


def scheduler_and_levels(**settings: object) -> tuple[Scheduler, Callable[[], dict[str, float]]]:
    scheduler = Scheduler({"m": LIMITS}, **settings)  # type: ignore[arg-type]  # as given by the tests below

    def levels() -> dict[str, float]:
        return {limit.name: limit.level for limit in scheduler.snapshot()[0].limits}

    return scheduler, levels


@pytest.mark.parametrize(
    ("end", "requests", "tokens"),
    [
        pytest.param(lambda turn: turn.used(), 1, 800, id="used, and the estimate stands"),
        pytest.param(lambda turn: turn.used(tokens=612), 1, 612, id="used less"),
        pytest.param(lambda turn: turn.used(tokens=900), 1, 900, id="used more"),
        pytest.param(lambda turn: turn.unsent(), 0, 0, id="unsent, and everything is given back"),
        pytest.param(lambda turn: turn.refused(), 1, 0, id="refused, and its tokens are given back"),
        pytest.param(lambda turn: turn.unknown(), 1, 800, id="unknown, and the estimate stands"),
        pytest.param(lambda turn: None, 1, 800, id="left without a word, which is unknown"),
    ],
)
async def test_each_end_keeps_what_the_server_has_taken(
    end: Callable[[Turn], None], requests: float, tokens: float
) -> None:
    scheduler, levels = scheduler_and_levels()
    async with scheduler.reserve("m", tokens=800) as turn:
        end(turn)
    assert levels() == pytest.approx({"RPM": FULL["RPM"] - requests, "TPM": FULL["TPM"] - tokens})
    assert scheduler.snapshot()[0].in_flight == 0


async def test_leaving_with_an_error_is_unknown_and_the_error_passes() -> None:
    scheduler, levels = scheduler_and_levels()
    turn = scheduler.reserve("m", tokens=800)
    with pytest.raises(ConnectionError, match="gone"):
        async with turn:
            raise ConnectionError("gone")
    assert turn.how == "unknown"
    assert levels()["TPM"] == FULL["TPM"] - 800


async def test_usage_does_not_overrule_headers_that_tell_what_was_taken() -> None:
    scheduler, levels = scheduler_and_levels()
    async with scheduler.reserve("m", tokens=800) as turn:
        turn.observe(Observed(readings=(Reading("tokens", TPM, TPM - 800, 0.8),)))
        turn.used(tokens=20)
    assert levels()["TPM"] == FULL["TPM"] - 800


async def test_ending_twice_raises_and_changes_nothing() -> None:
    scheduler, levels = scheduler_and_levels()
    async with scheduler.reserve("m", tokens=800) as turn:
        turn.used(tokens=700)
        with pytest.raises(AlreadySettled) as twice:
            turn.unsent()
        with pytest.raises(AlreadySettled):
            turn.observe(Observed())
    assert str(twice.value) == (
        "<Turn m: {'requests': 1, 'tokens': 800}, used> has already ended as 'used'; end each one exactly once"
    )
    assert levels()["TPM"] == FULL["TPM"] - 700
    with pytest.raises(AlreadySettled):
        await turn.__aenter__()


async def test_a_turn_that_was_never_entered_cannot_be_ended() -> None:
    scheduler, _ = scheduler_and_levels()
    turn = scheduler.reserve("m", tokens=800)
    with pytest.raises(AlreadySettled, match="has already ended as 'not begun'"):
        turn.used()


async def test_a_decorated_function_waits_for_its_turn() -> None:
    scheduler, _ = scheduler_and_levels()

    @scheduler.limited("m", tokens=500)
    async def double(number: int) -> int:
        """Doubles."""
        assert scheduler.snapshot()[0].in_flight == 1
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    assert await double(21) == 42
    assert (double.__name__, double.__doc__) == ("double", "Doubles.")
    with pytest.raises(ValueError, match="negative"):
        await double(-1)
    assert [limit.used_last_minute for limit in scheduler.snapshot()[0].limits] == [2 / RPM, 1_000 / TPM]
    assert scheduler.snapshot()[0].in_flight == 0


async def test_a_lane_says_in_a_line_and_in_numbers_why_it_waits() -> None:
    scheduler = Scheduler({"gpt-4o": LIMITS}, concurrency=16, pace=10_000.0, patience=0.0)
    assert repr(scheduler) == "<Scheduler no lanes yet>"
    async with scheduler.reserve("gpt-4o") as turn:
        turn.used()
    tasks = [asyncio.create_task(_stay(scheduler, 3_680)) for _ in range(19)]
    await asyncio.sleep(0.5)
    assert repr(scheduler) == "<Scheduler gpt-4o: 3 waiting, 16 in flight, next when a slot is free>"
    scheduler.lane("gpt-4o").resize(20)
    await asyncio.sleep(0.09)
    assert repr(scheduler) == "<Scheduler gpt-4o: 3 waiting, 16 in flight, next in 2.97s (TPM)>"
    assert repr(scheduler.lane("gpt-4o")) == "<Lane gpt-4o: 3 waiting, 16 in flight, next in 2.97s (TPM)>"
    lane = scheduler.snapshot()[0]
    assert lane == LaneStatus("gpt-4o", 3, 16, 0, "TPM", lane.next_in, lane.limits)
    assert lane.next_in == pytest.approx(2.97, abs=1e-3)
    requests, tokens = lane.limits
    assert requests == LimitStatus("RPM", RPM, requests.level, 17 / RPM, 1, 10)
    assert tokens == LimitStatus("TPM", TPM, tokens.level, 16 * 3_680 / TPM, 1, 1_000)
    assert (requests.level, tokens.level) == pytest.approx((RPM - 10 - 17 + 5.9, 3_680 - 2_970), abs=0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert repr(scheduler) == "<Scheduler gpt-4o: 0 waiting, 0 in flight>"


async def test_events_tell_what_happens_in_a_lane_as_a_trace() -> None:
    trace: list[str] = []

    def note(event: Event) -> None:
        facts = [f"{name} {getattr(event, name)}" for name in event.__dataclass_fields__ if name not in {"lane", "at"}]
        trace.append(f"{event.at:.1f} {event.lane} {type(event).__name__}: {', '.join(facts)}")

    scheduler = Scheduler({"m": LIMITS}, observer=note)
    async with scheduler.reserve("m", tokens=59_000) as turn:
        await asyncio.sleep(1)
        turn.refused(Observed(retry_after=3.0), because_of_limit=True)
    async with scheduler.reserve("m", tokens=800) as turn:
        turn.used(tokens=612)
    assert trace == [
        "0.0 m Queued: waiting 1",
        "0.0 m Granted: waited 0.0, tokens 59000, waited_for None",
        "1.0 m Refused: limit TPM, retry_after 3.0",
        "1.0 m Changed: change Change(kind='cooled', limit='TPM', before=0, after=3.0)",
        "1.0 m Changed: change Change(kind='burst', limit='TPM', before=60000, after=20.0)",
        "1.0 m Changed: change Change(kind='share', limit='TPM', before=1, after=0.9836065573770492)",
        "1.0 m Settled: how refused, tokens 0",
        "1.0 m Queued: waiting 1",
        "1.0 m Waiting: limit TPM, until 4.0",
        "4.0 m Granted: waited 3.0, tokens 800, waited_for TPM",
        "4.0 m Settled: how used, tokens 612",
    ]


async def test_a_wait_is_told_once_however_often_the_lane_looks() -> None:
    waits: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Waiting):
            waits.append(f"{event.limit} until {event.until:.1f}")

    scheduler = Scheduler({"m": LIMITS}, observer=note, patience=0.0)
    async with scheduler.reserve("m", tokens=59_000) as turn:
        next_one = asyncio.create_task(_once(scheduler, refused=False))
        await asyncio.sleep(0.1)
        turn.used()
    await next_one
    assert waits == ["TPM until 0.8"]


async def test_a_ledger_that_fails_is_told_to_all_who_wait_and_asked_again_by_the_next() -> None:
    class Failing(LocalLedger):
        broken = True

        def reserve_at_once(self, cost: Cost) -> None:
            return None

        async def reserve(self, cost: Cost) -> Hold | float:
            if self.broken:
                raise OSError("no route to the ledger")
            return await super().reserve(cost)

    loop = asyncio.get_running_loop()
    scheduler = Scheduler({"m": LIMITS})
    ledger = Failing(LIMITS, loop.time)
    scheduler.lane("m").ledger = ledger
    ends = await asyncio.gather(*(_once(scheduler, refused=False) for _ in range(3)), return_exceptions=True)
    assert [str(end) for end in ends] == ["no route to the ledger"] * 3
    assert repr(scheduler) == "<Scheduler m: 0 waiting, 0 in flight>"
    ledger.broken = False
    await _once(scheduler, refused=False)


async def test_an_observer_that_fails_stops_nothing() -> None:
    reports: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(f"{context['message']}: {context['exception']}"))

    def fail(event: Event) -> None:
        raise RuntimeError(type(event).__name__)

    scheduler = Scheduler({"m": LIMITS}, observer=fail)
    async with scheduler.reserve("m", tokens=800) as turn:
        turn.used()
    loop.set_exception_handler(None)
    assert reports == [f"observer of lane m: {name}" for name in ("Queued", "Granted", "Settled")]
    assert scheduler.snapshot()[0].in_flight == 0


async def test_what_only_observers_hear_of_is_not_even_made_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Event, *_: object) -> None:
        pytest.fail("an event was made for nobody")

    for kind in set(Event.__subclasses__()) - Log.hears:
        monkeypatch.setattr(kind, "__init__", never)
    scheduler, _ = scheduler_and_levels(concurrency=1)
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(_once(scheduler, refused=number == 1))
    assert scheduler.snapshot()[0].refusals == 1


async def _once(scheduler: Scheduler, *, refused: bool) -> None:
    async with scheduler.reserve("m", tokens=800) as turn:
        if refused:
            turn.refused(Observed(retry_after=1.0))
        else:
            turn.used()


async def _stay(scheduler: Scheduler, tokens: float) -> None:
    async with scheduler.reserve("gpt-4o", tokens=tokens):
        await asyncio.sleep(1_000)


@pytest.mark.parametrize("wrong", [-1, math.nan, -math.inf])
async def test_a_cost_is_a_number_of_zero_or_more(wrong: float) -> None:
    scheduler, levels = scheduler_and_levels()
    remedy = f"^a request costs a number of zero or more, not {wrong!r}$"
    with pytest.raises(ValueError, match=remedy):
        scheduler.reserve("m", tokens=wrong)
    with pytest.raises(ValueError, match=remedy):
        scheduler.reserve("m", requests=wrong)
    async with scheduler.reserve("m", tokens=800) as turn:
        with pytest.raises(
            ValueError, match=f"^an answer costs a finite number of tokens, zero or more, not {wrong!r}$"
        ):
            turn.used(tokens=wrong)
        with pytest.raises(ValueError, match=r"^an answer costs a finite number of tokens, zero or more, not inf$"):
            turn.used(tokens=math.inf)
        turn.used(tokens=0)
    assert levels() == pytest.approx({"RPM": FULL["RPM"] - 1, "TPM": FULL["TPM"]})


def test_a_lane_says_so_when_it_is_used_in_another_loop() -> None:
    scheduler = Scheduler({"m": LIMITS})

    async def ask() -> None:
        async with scheduler.reserve("m", tokens=800) as turn:
            turn.used()

    run(ask())
    with pytest.raises(BadClient) as told:
        run(ask())
    assert str(told.value) == (
        "lane m belongs to another event loop, which may have ended; make a Scheduler within each asyncio.run, "
        "or a BlockingScheduler for threads"
    )


async def test_a_lane_that_has_no_limits_is_named_beside_those_that_have() -> None:
    with pytest.raises(BadClient) as caught:
        Scheduler({"b": LIMITS, "a": LIMITS}).reserve("typo")
    assert str(caught.value) == "lane typo has no limits; give it some, or name one that has: a, b"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"concurrency": 0}, "concurrency is 0; at least one request must be let through"),
        ({"slack": -1}, "slack is -1; it is a number of zero or more"),
        ({"pace": math.nan}, "pace is nan; it is a number of zero or more"),
        ({"patience": -0.5}, "patience is -0.5; it is a number of zero or more"),
        ({"longest_wait": math.nan}, "longest_wait is nan; it is a number of zero or more"),
    ],
)
def test_what_would_let_nobody_through_is_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match="^" + complaint + "$"):
        Scheduler({"m": LIMITS}, **settings)  # type: ignore[arg-type]  # wrong on purpose


async def test_a_limit_on_what_is_not_counted_is_refused_for_it_would_limit_nothing() -> None:
    scheduler = Scheduler({"m": [Limit("request", 500, MINUTE)]})
    with pytest.raises(BadClient) as caught:
        scheduler.reserve("m")
    assert (
        str(caught.value)
        == 'lane m has a limit on \'request\', of which nothing is counted; limit "requests" or "tokens"'
    )


async def test_only_async_functions_are_decorated() -> None:
    scheduler = Scheduler({"m": LIMITS})

    async def pieces() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError) as caught:
        scheduler.limited("m")(pieces)  # type: ignore[arg-type]  # wrong on purpose, as below
    assert str(caught.value) == (
        "test_only_async_functions_are_decorated.<locals>.pieces is a generator; "
        "use reserve() around where it is iterated over"
    )
    with pytest.raises(TypeError) as caught:
        await scheduler.limited("m")(len)("abc")  # type: ignore[arg-type]
    assert str(caught.value) == "<built-in function len> is not async; BlockingScheduler.limited is for such"
    assert scheduler.snapshot()[0].in_flight == 0
