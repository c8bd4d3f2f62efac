"""What the service says in mid-run is followed: limits that change, and a pause it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import pytest
from servers import Network, Service, flood

from ratelimit.admission.events import Changed, Event, Granted
from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.headers import Observed, Reading, Refusal

REPLY = 10.0
RPM, TPM = Limit("requests", 500, MINUTE), Limit("tokens", 200_000, MINUTE)
LIES: dict[str, Callable[[int], tuple[Reading, ...]]] = {
    "a limit of one token": lambda number: (Reading("tokens", 1, None, None),),
    "of one token and a million million in turn": lambda number: (
        Reading("tokens", 1 if number % 2 else 999_999_999_999, None, None),
        Reading("requests", 1 if number % 2 else 999_999_999_999, None, None),
    ),
    "of a part of a request": lambda number: (Reading("requests", 1e-9, None, None),),
    "full again in a month": lambda number: (Reading("requests", 500, None, 2_678_400.0),),
    "another window each time": lambda number: (Reading("requests", 500, 499, None, window=100.0 + number),),
}


@pytest.mark.parametrize(("before", "after"), [(600, 300), (300, 600), (600, 60)], ids=["halved", "doubled", "a tenth"])
async def test_a_limit_changed_by_header_is_followed_within_a_reply_and_a_window(before: int, after: int) -> None:
    events: list[Event] = []
    service = Service({("requests", MINUTE): before})
    scheduler = Scheduler({"m": [Limit("requests", before, MINUTE)]}, observer=events.append)
    network = Network.steady(0.05, REPLY)
    await flood(scheduler, service, network, 300)
    service.counters["requests", MINUTE].limit = after
    await flood(scheduler, service, network, 600)
    followed = 300 + REPLY + MINUTE
    assert service.refusals(0, 300) == 0
    assert service.refusals(followed) == 0
    assert service.count(int(followed), 600) >= 0.99 * after * (600 - followed) / MINUTE
    retuned = [event.change for event in events if isinstance(event, Changed) and event.change.kind == "retuned"]
    assert [(change.limit, change.before, change.after) for change in retuned] == [("RPM", before, after)]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_lane_outlives_headers_that_lie(lie: Callable[[int], tuple[Reading, ...]]) -> None:
    """For five minutes they do; ten minutes later all is as if they never had."""
    loop, numbers, answered = asyncio.get_running_loop(), count(1), 0
    scheduler, service = Scheduler({"m": [RPM, TPM]}), Service.of([RPM, TPM])
    while loop.time() < 960:
        async with scheduler.reserve("m", tokens=800) as turn:
            refusal = service.judge(800, loop.time())
            if loop.time() < 300:
                turn.observe(Observed(readings=lie(next(numbers))))
                turn.used()
            elif refusal is None:
                turn.observe(service.headers(loop.time()))
                turn.used()
                answered += loop.time() >= 900
            else:
                turn.refused(refusal)
    assert answered >= 0.99 * TPM.amount / 800
    (lane,) = scheduler.snapshot()
    assert len(lane.limits) <= 5


@pytest.mark.parametrize("replies", [1, 2])
async def test_a_limit_that_falls_below_what_waits_raises_for_it_once_two_replies_say_so(replies: int) -> None:
    scheduler = Scheduler({"m": [Limit("tokens", 60_000, MINUTE)]})
    told = Observed(readings=(Reading("tokens", 30_000, 0, 60.0),))
    outcomes: list[str] = []

    async def ask(name: str, tokens: float) -> None:
        try:
            async with scheduler.reserve("m", tokens=tokens) as turn:
                outcomes.append(f"{name} sent")
                turn.used()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is asserted
            outcomes.append(f"{name}: {error}")

    async with scheduler.reserve("m", tokens=30_000) as turn, scheduler.reserve("m", tokens=29_000) as other:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask("large", 40_000))
            group.create_task(ask("small", 500))
            await asyncio.sleep(2)
            turn.observe(told)
            if replies == 2:
                other.observe(told)
        turn.used()
        other.used()
    remedy = "lower max_tokens, split the prompt, or choose a higher tier"
    never = f"large: this request needs 40,000 of TPM, which allows at most 30,000 at once; {remedy}"
    assert outcomes == ["large sent" if replies == 1 else never, "small sent"]
    assert scheduler.snapshot()[0].waiting == 0


REACHED = Refusal("reached", "requests", MINUTE, limit=1200, used=1200, requested=1, wait=0.05, model="m", bucket=None)


@pytest.mark.parametrize("because_of_limit", [True, False], ids=["a limit", "slow down"])
async def test_a_wave_of_refusals_pauses_the_lane_once_for_as_long_as_told(because_of_limit: bool) -> None:
    loop, grants = asyncio.get_running_loop(), list[float]()

    def note(event: Event) -> None:
        if isinstance(event, Granted):
            grants.append(event.at)

    scheduler = Scheduler({"m": [Limit("requests", 1200, MINUTE)]}, concurrency=200, observer=note)
    told = Observed(retry_after=20.0, refusal=REACHED if because_of_limit else None)
    refused_at = asyncio.get_running_loop().create_future()

    async def one(number: int) -> None:
        async with scheduler.reserve("m") as turn:
            if number < 200:
                await refused_at
                # A first dozen within half a second, stragglers as late as ten: all were on the way together.
                await asyncio.sleep(number / 20 if number % 15 == 0 else 10.0)
            else:
                await asyncio.sleep(0.1)
            if number < 200 and number % 15 == 0:
                turn.refused(told, because_of_limit=because_of_limit)
            else:
                turn.used()

    async with scheduler.reserve("m") as turn:
        turn.used()
    tasks = [asyncio.create_task(one(number)) for number in range(500)]
    await asyncio.sleep(20)
    assert (len(grants), scheduler.snapshot()[0].in_flight, scheduler.snapshot()[0].waiting) == (201, 200, 300)
    refused_at.set_result(None)
    start = loop.time()
    await asyncio.gather(*tasks)
    assert start + 19 <= grants[201] <= start + 21
    assert len(grants) == 501
    pace = 10 * 1200 / MINUTE * 0.25  # of a bucket that is not full
    assert grants[-1] - grants[201] <= 300 / pace
