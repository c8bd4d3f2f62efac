"""A lane fills each tier's cap and never crosses it: requests bound, tokens bound, and over days with a restart.

What a bucket could have admitted by a moment is its limit and what came back since the start, less the stated slack, a
second of refill. Both ends round: a request still on the way at the end has been sent but not admitted yet.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

import pytest
from servers import Ask, Network, Service, flood, of_tokens

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.tiers import load

LONGEST_WAY = 0.9
"""Seconds a request of `Network.rough` may be on the way."""

# Tiers 3, 4 and 5 of both models are the same figures; each set of figures is shown once.
CELLS = [
    pytest.param(model, tier, minutes, id=f"{name} {tier}")
    for name, model, tier, minutes in (
        ("gpt-4o-mini", "gpt-4o-mini", "free", 10),
        ("gpt-4o-mini", "gpt-4o-mini", "tier-1", 10),
        ("gpt-4o-mini", "gpt-4o-mini", "tier-2", 1.25),
        ("o4-mini", "o4-mini", "tier-1", 10),
        ("o4-mini", "o4-mini", "tier-2", 5),
        ("gpt-4o-mini and o4-mini", "o4-mini", "tier-3", 1.25),
        ("gpt-4o-mini and o4-mini", "o4-mini", "tier-4", 1),
        ("gpt-4o-mini and o4-mini", "o4-mini", "tier-5", 0.75),
    )
]


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    """Tens of thousands of tasks wait at once: looking through them for cycles takes a third of the time."""
    gc.disable()
    yield
    gc.enable()


def test_the_cells_that_are_shown_once_are_the_same() -> None:
    table = load()
    for tier in ("tier-3", "tier-4", "tier-5"):
        assert set(table.limits("gpt-4o-mini", tier)) == set(table.limits("o4-mini", tier))


@pytest.mark.parametrize(("model", "tier", "minutes"), CELLS)
async def test_small_requests_fill_rpm_and_never_cross_it(model: str, tier: str, minutes: float) -> None:
    limits = load().limits(model, tier)
    rpm = amount_of(limits, "requests", MINUTE)
    service = await run(limits, minutes * MINUTE, asks=lambda: of_tokens(20), backlog=max(round(rpm / 2), 200))
    could = int(rpm * (1 + minutes) - rpm / MINUTE)
    assert service.refused == []
    # 99.5 % over ten minutes. Nothing but the start and the last moment costs anything, so on a shorter horizon what
    # is lost may be as much as that, and the second half may lose nothing but the last moment.
    lost = could - service.count(0, minutes * MINUTE)
    assert lost <= 0.005 * rpm * 11
    half = minutes * MINUTE / 2
    second_half = service.count(half - LONGEST_WAY, 2 * half)
    assert second_half >= 0.995 * rpm / MINUTE * half


@pytest.mark.parametrize(("model", "tier", "_minutes"), [cell for cell in CELLS if "free" not in str(cell.id)])
async def test_tokens_of_all_sizes_fill_tpm_and_never_cross_it(model: str, tier: str, _minutes: float) -> None:
    # Free is not here: three requests a minute cannot reach its tokens unless each is larger than this.
    limits = load().limits(model, tier)
    tpm = amount_of(limits, "tokens", MINUTE)
    sizes: list[float] = []
    draw = sizes_of(tpm, seed=11)

    def ask() -> Ask:
        sizes.append(draw())
        return of_tokens(sizes[-1])

    service = await run(limits, 600, asks=ask, backlog=100)
    assert service.refused == []
    assert service.count(0, 600) < 0.9 * 11 * amount_of(limits, "requests", MINUTE)  # tokens bind, not requests
    # First come, first served, so what could have passed is a beginning of the line.
    could = tpm * (1 + (600 - LONGEST_WAY) / MINUTE) - tpm / MINUTE
    line = max(total for total in accumulate(sizes) if total <= could)
    assert max(sizes) == 0.2 * tpm
    assert service.tokens(0, 600) >= 0.995 * line


@pytest.mark.parametrize("tier", ["free", "tier-1"])
async def test_two_days_with_a_restart_fill_rpd_and_never_cross_it(tier: str) -> None:
    limits = load().limits("gpt-4o-mini", tier)
    rpd = amount_of(limits, "requests", DAY)
    service, network, gap = Service.of(limits), Network.rough(2), 120.0
    # The day's bucket opens at the minute's pace; later a few requests trickle, and few need to wait for them.
    first = Scheduler({"m": limits})
    await flood(first, service, network, 3600, backlog=6000, every=600)
    await flood(first, service, network, DAY, backlog=400, every=3000)
    spent = first.spent()
    await asyncio.sleep(gap)
    second = Scheduler({"m": limits}, resume=spent, elapsed=gap)
    await flood(second, service, network, 2 * DAY, backlog=400, every=3000)
    assert service.refused == []
    assert service.count(0, 2 * DAY) >= 0.995 * int(rpd * 3 - rpd / DAY)


@pytest.mark.parametrize("tier", ["free", "tier-1"])
async def test_a_restart_without_memory_learns_rpd_from_its_first_answers(tier: str) -> None:
    limits = load().limits("gpt-4o-mini", tier)
    rpd = amount_of(limits, "requests", DAY)
    service = Service.of(limits)
    service.counters["requests", DAY].charge(rpd, 0.0)
    scheduler = Scheduler({"m": limits})
    await flood(scheduler, service, Network.rough(2), DAY, backlog=400, every=3000)
    # It sends a request alone, and more at its usual rate should the answer be slow to come: what is on the way until
    # then is refused, in one wave. Then it knows how the day stands.
    assert {(unit, window) for _, unit, window in service.refused} == {("requests", DAY)}
    assert service.refusals(2.0) == 0
    assert service.count(0, DAY) >= 0.995 * int(rpd - rpd / DAY)


async def run(limits: Iterable[Limit], seconds: float, *, asks: Callable[[], Ask], backlog: int) -> Service:
    limits = tuple(limits)
    service = Service.of(limits)
    scheduler = Scheduler({"m": limits}, concurrency=100_000)
    await flood(scheduler, service, Network.rough(1), seconds, asks=asks, backlog=backlog)
    return service


def sizes_of(tpm: float, seed: int) -> Callable[[], float]:
    """Sizes lognormal around a 400th of the limit; one in fifty is a fifth of it."""
    rng = random.Random(seed)

    def draw() -> float:
        if rng.random() < 0.02:
            return 0.2 * tpm
        return min(round(rng.lognormvariate(0, 1) * tpm / 400), 0.2 * tpm)

    return draw


def amount_of(limits: Iterable[Limit], unit: str, window: float) -> float:
    return next(limit.amount for limit in limits if (limit.unit, limit.window) == (unit, window))
