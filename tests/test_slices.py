"""What may leave within a slice and the spread of ways, as a trace; and that no slice anywhere is ever overfull."""

from __future__ import annotations

import math
import random

import pytest

from ratelimit.limits.slices import Slices

SLICE = 10


def test_a_slice_and_its_spread_hold_no_more_than_a_slice() -> None:
    slices = Slices(1.0)
    slices.widen()
    slices.widen()
    assert (slices.spread, slices.span) == (0.3, 1.3)
    for at, amount in ((0.0, 4), (0.5, 4)):
        assert slices.ready_at(amount, SLICE) == -math.inf
        slices.add(amount, at)
    rows = {2: -math.inf, 3: 1.3, 6: 1.3, 7: 1.8, 10: 1.8, 11: 1.8}  # what is larger than a slice leaves alone
    assert {amount: slices.ready_at(amount, SLICE) for amount in rows} == rows
    slices.add(6, 1.3)
    assert {amount: slices.ready_at(amount, SLICE) for amount in (0, 1, 5)} == {0: -math.inf, 1: 1.8, 5: 2.6}


def test_what_leaves_together_counts_from_the_last_of_it() -> None:
    slices = Slices(60.0)
    for step in range(10):
        slices.add(1, step / 1000)
    assert slices.ready_at(1, SLICE) == 0.009 + 61


def test_what_leaves_in_a_steady_stream_comes_back_as_it_left() -> None:
    slices = Slices(60.0)
    for step in range(100):
        slices.add(1, step * 0.009)  # each closer to the one before than what is counted as one
    assert slices.ready_at(1, 100) == pytest.approx(61, abs=0.01)
    assert slices.ready_at(50, 100) == pytest.approx(61 + 49 * 0.009, abs=0.01)


@pytest.mark.parametrize(
    ("length", "spreads"),
    [(1.0, [0.01, 0.1, 0.3, 1.0, 3.0, 3.0]), (60.0, [1.0, 3.0, 10.0, 15.0, 22.5])],
    ids=["a second", "a minute"],
)
def test_a_spread_grows_from_the_least_that_is_credible(length: float, spreads: list[float]) -> None:
    slices, found = Slices(length), list[float]()
    for _ in spreads:
        found.append(slices.spread)
        slices.widen()
    assert found == spreads


def test_whole_requests_that_fit_a_slice_set_the_rate() -> None:
    slices = Slices(1.0)
    assert slices.share(8.5, 1) == pytest.approx(8 / 8.5 / 1.01)
    assert slices.share(8.5, 0) == pytest.approx(1 / 1.01)
    assert slices.share(0.5, 1) == pytest.approx(1 / 1.01)  # each is more than a slice: they are paid off after it


@pytest.mark.parametrize("seed", range(5))
def test_no_slice_is_overfull_wherever_it_starts_and_however_arrivals_are_spread(seed: int) -> None:
    rng, slices, now, arrivals = random.Random(seed), Slices(1.0), 0.0, list[tuple[float, float]]()
    for _ in range(3):
        slices.widen()
    for _ in range(400):
        amount = rng.uniform(0.1, SLICE)
        now = max(now + rng.expovariate(4), slices.ready_at(amount, SLICE))
        slices.add(amount, now)
        arrivals.append((now + rng.uniform(0, slices.spread), amount))
    arrivals.sort()
    for start, _ in arrivals:
        assert sum(amount for at, amount in arrivals if start <= at < start + 1.0) <= SLICE + 1e-9
