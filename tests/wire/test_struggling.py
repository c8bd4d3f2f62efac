"""When a service is down, and how much one that struggles is asked to bear: on numbers alone."""

from __future__ import annotations

import random

import pytest

from ratelimit.wire.congestion import Congestion
from ratelimit.wire.retry import Outage, Policy


@pytest.mark.parametrize(("failing", "paused"), [(0.3, 0), (0.35, 0), (0.9, 1)])
def test_only_a_service_that_mostly_fails_is_down(failing: float, paused: int) -> None:
    outage, draw = Outage(Policy()), random.Random(1)
    for _ in range(50_000):
        if draw.random() >= failing:
            outage.succeeded(0.0)
        elif outage.failed():
            break
    assert outage.paused == paused


def test_concurrency_recovers_from_one() -> None:
    congestion = Congestion(100)
    for second in range(200):
        congestion.failed(1, second)
    assert congestion.size == 1
    for _ in range(99):
        assert congestion.succeeded(congestion.size)
    assert congestion.size == 100
    assert not congestion.succeeded(100)


def test_a_size_between_one_and_two_is_no_trap() -> None:
    congestion = Congestion(100)
    for _ in range(5):
        congestion.failed(2, 0.0)
    assert congestion.size == 1
    assert congestion.succeeded(1)
    assert congestion.size == 2


def test_concurrency_is_cut_once_for_what_fails_together() -> None:
    congestion = Congestion(100)
    assert [congestion.failed(100, 5.0) for _ in range(50)] == [False] * 4 + [True] + [False] * 45
    assert congestion.size == 70
    assert not congestion.succeeded(30)  # a size that holds nobody back says nothing
    assert congestion.size == 70
