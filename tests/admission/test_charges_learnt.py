"""An estimate that is too high costs nothing for long, whatever the server charges by."""

from __future__ import annotations

import random

import pytest
from servers import Ask, Network, Service, flood, of_tokens

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.charge import FORMULAS, Formula, charge, measure

TPM = 200_000
LIMITS = (Limit("requests", 50_000, MINUTE), Limit("tokens", TPM, MINUTE))
WORDS = ("requests", "minute", "scheduler", "answer", "of", "the", "to", "and", "a", "limit", "1,500")


@pytest.mark.parametrize("network", [Network.steady(), Network.rough(3)], ids=["steady", "rough"])
async def test_a_charge_estimated_four_times_too_high_fills_the_true_cap(network: Network) -> None:
    rng = random.Random(5)
    service = await run(network, lambda: of_tokens(round(rng.uniform(100, 1500)), over=4.0))
    assert_true_cap_is_filled(service)


@pytest.mark.parametrize("formula", FORMULAS)
async def test_the_most_careful_formula_fills_the_true_cap_of_each_other(formula: Formula) -> None:
    rng = random.Random(7)
    asks = [_ask(rng, formula) for _ in range(100)]
    assert all(ask.estimate >= ask.charged for ask in asks)
    service = await run(Network.rough(4), lambda: rng.choice(asks))
    assert_true_cap_is_filled(service)


async def test_a_charge_estimated_too_low_is_learnt_within_a_few_refusals() -> None:
    rng = random.Random(5)
    service = await run(Network.steady(), lambda: of_tokens(round(rng.uniform(150, 2000)), over=2 / 3))
    assert service.refusals() <= 10
    assert service.tokens(120, 600) >= 0.95 * TPM * 8


def _ask(rng: random.Random, formula: Formula) -> Ask:
    """A chat of a few hundred words with a cap on the answer: what the most careful formula takes it for, and one."""
    text = " ".join(rng.choices(WORDS, k=round(rng.lognormvariate(5.5, 0.8))))
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": text}],
        "max_tokens": rng.choice([256, 512, 1024, 2048]),
    }
    size = measure(body)
    return Ask(charge(size, "exact_plus_cap"), charge(size, formula))


async def run(network: Network, asks: object) -> Service:
    assert callable(asks)
    service = Service.of(LIMITS)
    await flood(Scheduler({"m": LIMITS}, concurrency=100_000), service, network, 600, asks=asks, backlog=100)
    return service


def assert_true_cap_is_filled(service: Service) -> None:
    assert service.refused == []
    assert service.tokens(120, 600) >= 0.98 * TPM * 8
