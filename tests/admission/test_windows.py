"""Servers that count in windows or in seconds: a few refusals tell, then the lane leaves evenly and is never refused.

"From then on" is one window after the last refusal: what was sent before it still counts in a sliding minute.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from servers import Ask, Network, Service, flood, of_tokens

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit

END = 300.0
TOKENS = [Limit("requests", 50_000, MINUTE), Limit("tokens", 200_000, MINUTE)]
KINDS = ["sliding", "fixed", "quantised"]
SPEAKS = pytest.mark.parametrize("speaks", [True, False], ids=["with headers", "silent"])


@SPEAKS
@pytest.mark.parametrize("rpm", [500, 600])
@pytest.mark.parametrize("kind", KINDS)
async def test_requests_settle_below_a_window_of_another_kind(kind: str, rpm: int, speaks: bool) -> None:
    service = await run(kind, [Limit("requests", rpm, MINUTE)], speaks=speaks)
    assert 1 <= service.refusals() <= 5
    assert_full_after_the_last_refusal(service, rpm, service.count)


@SPEAKS
@pytest.mark.parametrize("kind", KINDS)
async def test_tokens_settle_below_a_window_of_another_kind(kind: str, speaks: bool) -> None:
    # Pieces are small against what the slice holds, 200,000 a minute or 3,333 a second: none can be filled with others.
    rng, least, most = random.Random(5), *((20, 100) if kind == "quantised" else (100, 1500))
    service = await run(kind, TOKENS, speaks=speaks, asks=lambda: of_tokens(round(rng.uniform(least, most))))
    assert 1 <= service.refusals() <= 5
    assert_full_after_the_last_refusal(service, 200_000, service.tokens)


@pytest.mark.parametrize("kind", ["sliding", "fixed"])
async def test_a_rough_way_blurs_a_minute_but_little(kind: str) -> None:
    service = await run(kind, [Limit("requests", 600, MINUTE)], network=Network.rough(9))
    assert 1 <= service.refusals() <= 5
    assert_full_after_the_last_refusal(service, 600, service.count)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
async def test_refusals_end_on_a_rough_way_whatever_the_sizes(kind: str, seed: int) -> None:
    rng, limits = random.Random(seed), [Limit("requests", 500, MINUTE), Limit("tokens", 10_000, MINUTE)]
    most, least_used = (10_000 / 60, 0.3) if kind == "quantised" else (1_000, 0.92)
    asks = lambda: of_tokens(min(rng.lognormvariate(0, 0.8) * 58, most))  # noqa: E731 - sizes up to all that a slice holds
    service = await run(kind, limits, asks=asks, network=Network.rough(seed))
    assert service.refusals(END / 2) == 0
    assert service.tokens(END / 2, END) >= least_used * 10_000 * END / 2 / MINUTE


async def test_large_pieces_settle_about_where_a_second_can_hold_them() -> None:
    rng = random.Random(5)
    service = await run("quantised", TOKENS, asks=lambda: of_tokens(round(rng.uniform(100, 1500))))
    assert service.refusals(END / 2) <= 5 * service.count(END / 2, END) / 1000
    assert service.tokens(END / 2, END) >= (1 - 1500 / (200_000 / 60)) * 200_000 * END / 2 / MINUTE


async def run(
    kind: str,
    limits: list[Limit],
    *,
    speaks: bool = True,
    asks: Callable[[], Ask] = Ask,
    network: Network | None = None,
) -> Service:
    service = Service.of(limits, kind=kind, speaks=speaks)
    await flood(Scheduler({"m": limits}), service, network or Network.steady(0.05), END, asks=asks)
    return service


def assert_full_after_the_last_refusal(service: Service, limit: float, taken: Callable[[float, float], float]) -> None:
    start = service.refused[-1][0] + MINUTE
    assert start < END / 2
    assert taken(start, END) >= 0.95 * limit * (END - start) / MINUTE
