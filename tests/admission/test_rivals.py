"""Another program on the same key: the lane lives on what it leaves, and takes everything back once it is gone."""

from __future__ import annotations

import asyncio

import pytest
from servers import Network, Service, flood, of_tokens, rival_in_bursts, rival_steadily

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit

RPM, TPM, PART = 600, 60_000, 0.4
GONE, END = 600.0, 840.0
RIVALS = pytest.mark.parametrize("rival", [rival_steadily, rival_in_bursts], ids=["steady", "in bursts"])


@RIVALS
@pytest.mark.parametrize("one_way", [0.05, 0.3])
@pytest.mark.parametrize("reply", [1.0, 10.0, 30.0])
async def test_a_rival_for_requests_is_given_way_and_succeeded(reply: float, one_way: float, rival: object) -> None:
    service = await run([Limit("requests", RPM, MINUTE)], rival, Network.steady(one_way, reply), tokens=0)
    assert_gave_way(service, RPM, service.count(0, GONE), len(service.rival))
    assert service.count(GONE + 180, END) >= 0.99 * RPM * (END - GONE - 180) / MINUTE


@RIVALS
@pytest.mark.parametrize("reply", [1.0, 10.0])
async def test_a_rival_for_tokens_is_given_way_and_succeeded(reply: float, rival: object) -> None:
    limits = [Limit("requests", 10 * RPM, MINUTE), Limit("tokens", TPM, MINUTE)]
    service = await run(limits, rival, Network.steady(0.05, reply), tokens=TPM / RPM)
    assert_gave_way(service, TPM, service.tokens(0, GONE), sum(tokens for _, tokens in service.rival))
    assert service.tokens(GONE + 180, END) >= 0.99 * TPM * (END - GONE - 180) / MINUTE


async def run(limits: list[Limit], rival: object, network: Network, tokens: float) -> Service:
    assert callable(rival)
    service = Service.of(limits)
    scheduler = Scheduler({"m": limits}, concurrency=100_000)
    somebody = asyncio.create_task(rival(service, tokens, MINUTE / (PART * RPM), GONE))
    await flood(scheduler, service, network, END, asks=lambda: of_tokens(tokens))
    await somebody
    return service


def assert_gave_way(service: Service, limit: float, ours: float, theirs: float) -> None:
    assert theirs > 0.8 * PART * limit * GONE / MINUTE
    assert service.refusals(0, GONE) <= 5 * service.count(0, GONE) / 1000
    assert ours >= 0.95 * (limit * (1 + GONE / MINUTE) - theirs)
