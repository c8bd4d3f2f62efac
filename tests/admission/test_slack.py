"""What is kept back for requests that arrive closer together than they were sent, and when less of it will do.

The worst case for a lane that has seen quick ways only: from then on the ways are long. It does no harm, since nothing
that is late takes anything from a server whose bucket is not full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from servers import Service

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit

RPM, SECOND = 600, 10
LIMITS = (Limit("requests", RPM, MINUTE),)

Way = Callable[[float, int], float]


@pytest.mark.parametrize("long", [0.02, 0.5, 0.9])
async def test_ways_that_grow_longer_later_cost_nothing_and_are_not_waited_for(long: float) -> None:
    lane = Lane(lambda now, number: 0.02 if now < 10 else long - number % 2 * long / 2)
    await lane.run(100)
    assert lane.service.refused == []
    # A tenth of a second's worth is kept back, and a quarter of a second was lost at the beginning; of what was sent in
    # the last `long` seconds not all has arrived.
    assert lane.service.count(0, 100) >= RPM + (100 - long) * SECOND - 0.4 * SECOND


async def test_the_whole_slack_is_kept_where_ways_differed_while_the_bucket_was_full() -> None:
    lane = Lane(lambda _, number: (0.02, 0.9)[number % 3 == 0])
    await lane.run(100)
    assert lane.service.refused == []
    assert lane.reserve == SECOND


async def test_a_server_that_does_not_say_how_long_it_worked_may_have_been_far_away() -> None:
    lane = Lane(lambda *_: 0.02, tells=False)
    await lane.run(100)
    assert lane.reserve == SECOND


async def test_what_is_known_of_ways_holds_until_the_bucket_is_full_again() -> None:
    lane = Lane(lambda now, number: 0.02 if now < 80 or number % 4 else 0.95)
    await lane.run(80)
    assert lane.reserve == SECOND / 10
    await asyncio.sleep(70)
    await lane.run(300)
    assert lane.reserve == SECOND
    assert lane.service.refused == []


@pytest.mark.parametrize(("at", "refused"), [(8.0, False), (80.0, True)], ids=["while some is left", "at the limit"])
async def test_the_whole_slack_is_kept_from_when_somebody_else_is_seen_on(at: float, refused: bool) -> None:
    lane = Lane(lambda *_: 0.02)
    counter = lane.service.counters["requests", MINUTE]
    asyncio.get_running_loop().call_at(at, counter.charge, SECOND, at)
    seen = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_at(at - 0.01, lambda: seen.set_result(lane.reserve))
    await lane.run(100)
    assert await seen == SECOND / 10
    assert lane.reserve >= SECOND
    assert bool(lane.service.refused) is refused


class Lane:
    """A lane of which somebody always waits, and a service that says how long it worked on each request."""

    def __init__(self, way: Way, *, tells: bool = True) -> None:
        self.service = Service.of(LIMITS)
        self._way, self._tells = way, tells
        self._scheduler = Scheduler({"m": LIMITS})
        self._number = 0

    @property
    def reserve(self) -> float:
        (lane,) = self._scheduler.snapshot()
        return lane.limits[0].reserve

    async def run(self, until: float) -> None:
        tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            waiting = sum(lane.waiting for lane in self._scheduler.snapshot())
            for _ in range(300 - waiting):
                tasks.add(asyncio.create_task(self._send()))
            await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        loop, arrival, work = asyncio.get_running_loop(), self._scheduler.arrive(), 1.0
        while True:
            async with self._scheduler.reserve("m", arrival=arrival) as turn:
                self._number += 1
                await asyncio.sleep(self._way(loop.time(), self._number))
                if (refusal := self.service.judge(0, loop.time())) is None:
                    headers = replace(self.service.headers(loop.time()), worked=work if self._tells else 0.0)
                    await asyncio.sleep(work)
                    turn.observe(headers)
                    turn.used()
                    return
                turn.refused(refusal)
