"""What was sent lately, against a list of everything that ever was; rounded outwards, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import F

from ratelimit.limits.meter import KEPT, SLOT, Meter

MANY = settings(max_examples=120, deadline=None)
UNITS = ("requests", "tokens")


def meter_of(*sends: tuple[float, float]) -> Meter:
    meter = Meter(UNITS)
    for at, tokens in sends:
        meter.add({"requests": 1, "tokens": tokens}, at)
    return meter


pauses = st.one_of(st.just(0.0), st.floats(0, 0.2), st.floats(0, 5), st.floats(0, 200))


@MANY
@given(
    st.floats(-10, 1e6),
    st.lists(st.tuples(pauses, st.integers(0, 50)), max_size=60),
    st.lists(st.tuples(st.floats(-1, KEPT), st.floats(0, KEPT)), min_size=1, max_size=10),
)
def test_it_tells_no_less_than_the_truth_and_no_more_than_the_slots_touched(
    now: float, sends: list[tuple[float, int]], stretches: list[tuple[float, float]]
) -> None:
    meter, sent = Meter(UNITS), list[tuple[float, int]]()
    for pause, tokens in sends:
        now += pause
        meter.add({"tokens": tokens}, now)
        sent.append((now, tokens))
        assert meter.ever("tokens") == sum(amount for _, amount in sent)
        for ago, length in stretches:
            start = now - ago
            end = start + length
            told = meter.between("tokens", start, end)
            assert told >= sum(n for at, n in sent if start <= at <= end)
            assert told <= sum(n for at, n in sent if start - SLOT * 1.001 <= at <= end + SLOT * 1.001)
            since = meter.since("tokens", start)
            assert since >= sum(n for at, n in sent if start <= at)
            assert since <= sum(n for at, n in sent if start - SLOT * 1.001 <= at)
        assert meter.between("requests", now - 1, now) == 0


@pytest.mark.parametrize(
    ("start", "end", "tokens"),
    [
        (0.0, 0.049, 1),  # the whole slot
        (0.03, 0.04, 1),
        (0.05, 0.07, 10),
        (0.0, 0.05, 11),
        (0.0, 10.0, 111),
        (0.10, 0.99, 0),
        (2.0, 1.0, 0),
        (-5.0, -1.0, 0),
        (1.05, 9.0, 0),
    ],
)
def test_a_stretch_takes_in_every_slot_it_touches(start: float, end: float, tokens: float) -> None:
    assert meter_of((0.0, 1), (0.06, 10), (1.0, 100)).between("tokens", start, end) == tokens


@pytest.mark.parametrize("slot", [0, 1, 43, 81, 86, 1_000_003])
def test_the_last_slot_is_part_of_everything_since(slot: int) -> None:
    # 43 * 0.05 / 0.05 is less than 43
    meter = meter_of(((slot + 0.5) * SLOT, 7))
    assert meter.since("tokens", slot * SLOT) == 7
    assert meter.since("tokens", (slot + 1.5) * SLOT) == 0


def test_time_may_lie_before_zero() -> None:
    meter = meter_of((-0.04, 1), (0.04, 10))
    assert [meter.between("tokens", *stretch) for stretch in ((-0.05, -0.01), (-0.01, 0.01), (0.0, 0.01))] == [
        1,
        11,
        10,
    ]


def test_nothing_sent_and_units_not_metered_count_nothing() -> None:
    empty = Meter(UNITS)
    assert (empty.between("tokens", 0, 9), empty.since("tokens", 0)) == (0, 0)
    meter = meter_of((1.0, 5))
    assert (meter.between("images", 0, 9), meter.since("images", 0)) == (0, 0)
    meter.add({"images": 4}, 1.0)
    assert (meter.since("tokens", 0), meter.since("requests", 0)) == (5, 1)


def test_a_clock_that_steps_back_counts_with_the_last_send() -> None:
    assert meter_of((1.0, 5), (0.9, 3)).between("tokens", 1.0, 1.0) == 8


def test_fractions_stay_exact() -> None:
    meter = Meter(UNITS)
    for _ in range(3):
        meter.add({"tokens": F(1, 3)}, F(1, 10))
    assert meter.since("tokens", F(0)) == F(1)


def test_memory_is_bounded_and_what_is_kept_stays_right() -> None:
    meter, most = Meter(UNITS), 0
    for step in range(20_000):
        meter.add({"tokens": 2}, step * SLOT + 0.01)
        most = max(most, len(meter._slots))
    assert KEPT / SLOT <= most <= 2 * KEPT / SLOT + 2
    assert meter.between("tokens", 19_999 * SLOT - KEPT + 0.06, 1e9) == 2 * KEPT / SLOT
    assert meter.since("tokens", 19_990 * SLOT + 0.01) == 20
    meter.add({"tokens": 1}, 1e6)
    assert len(meter._slots) == 1
    assert meter.since("tokens", 0) == 1
