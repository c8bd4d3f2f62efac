"""One limit's headers against the arithmetic of a bucket: every recorded set, and what the service's clock can show."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.limits.headers import Observed, Reading, parse

MINUTE, DAY, MONTH = 60, 86_400, 2_592_000

Row = tuple[str, int, int | None, str, float, int | None]
OBSERVED: dict[str, list[Row]] = {
    "1 gpt-4o": [("requests", 500, 499, "120ms", 0.12, MINUTE), ("tokens", 30000, 29973, "54ms", 0.054, MINUTE)],
    "2 gpt-4o": [("requests", 500, 499, "120ms", 0.12, MINUTE), ("tokens", 30000, 29996, "8ms", 0.008, MINUTE)],
    "3 gpt-4o-mini": [("requests", 10000, 9999, "8.64s", 8.64, DAY), ("tokens", 200000, 199943, "16ms", 0.016, MINUTE)],
    "4 gpt-4o-mini": [
        ("requests", 10000, 9998, "12.967s", 12.967, DAY),
        ("tokens", 200000, 199943, "16ms", 0.016, MINUTE),
    ],
    "5 gpt-4o-mini": [
        ("requests", 10000, 9985, "2m7.93s", 127.93, DAY),
        ("tokens", 200000, 199959, "12ms", 0.012, MINUTE),
    ],
    "6 gpt-3.5-turbo": [
        ("requests", 200, 197, "20m52.666s", 1252.666, DAY),
        ("tokens", 40000, 39974, "39ms", 0.039, MINUTE),
    ],
    "7 gpt-4": [("requests", 10000, 9998, "16.601s", 16.601, DAY), ("tokens", 10000, 9978, "132ms", 0.132, MINUTE)],
    "8 gpt-4.1-mini": [
        ("requests", 500, 499, "120ms", 0.12, MINUTE),
        ("tokens", 200000, 199721, "83ms", 0.083, MINUTE),
    ],
    "9 gpt-5-nano": [("requests", 500, 499, "120ms", 0.12, MINUTE), ("tokens", 200000, 199992, "2ms", 0.002, MINUTE)],
    "10 gpt-5": [("requests", 500, 499, "120ms", 0.12, MINUTE), ("tokens", 500000, 499995, "0s", 0.0, MINUTE)],
    "11 gpt-5.4": [("requests", 500, 499, "120ms", 0.12, MINUTE), ("tokens", 500000, 499875, "15ms", 0.015, MINUTE)],
    "12 gpt-5": [("requests", 15000, 14999, "4ms", 0.004, MINUTE), ("tokens", 40000000, 39999995, "0s", 0.0, MINUTE)],
    "13 gpt-4o-mini": [("requests", 30000, 29999, "2ms", 0.002, MINUTE), ("tokens", 150000000, None, "0s", 0.0, None)],
    "14 forum": [("requests", 5000, 4999, "12ms", 0.012, MINUTE), ("tokens", 160000, 159976, "9ms", 0.009, MINUTE)],
    "15 embedding-3-large": [
        ("requests", 5000, 4999, "12ms", 0.012, MINUTE),
        ("tokens", 5000000, 4976251, "284ms", 0.284, MINUTE),
    ],
    "16 gpt-4-1106-preview": [
        ("requests", 500, 499, "120ms", 0.12, MINUTE),
        ("tokens", 1500000, 1495621, "4m12.172s", 252.172, DAY),
    ],
    "17 gpt-4o": [
        ("requests", 10000, 9999, "6ms", 0.006, MINUTE),
        ("tokens", 30000000, 29998623, "2ms", 0.002, MINUTE),
        ("project-requests", 10000, 9999, "6ms", 0.006, MINUTE),
    ],
}
ROWS = [pytest.param(*row, id=f"{name} {row[0]}") for name, rows in OBSERVED.items() for row in rows]


def test_all_observed_sets_are_here() -> None:
    assert [int(name.split()[0]) for name in OBSERVED] == list(range(1, 18))


@pytest.mark.parametrize("rows", OBSERVED.values(), ids=OBSERVED.keys())
def test_every_observed_set_is_read(rows: list[Row]) -> None:
    headers = {"Content-Type": "application/json", "x-request-id": "req_0", "openai-processing-ms": "581"}
    expected = []
    for name, limit, remaining, text, reset, _ in rows:
        headers |= {f"x-ratelimit-limit-{name}": str(limit), f"X-RateLimit-Reset-{name}": text}
        if remaining is not None:
            headers[f"x-ratelimit-remaining-{name}"] = str(remaining)
        scope = "project" if name.startswith("project-") else "organization"
        expected.append(Reading(name.removeprefix("project-"), limit, remaining, reset, scope))
    assert parse(headers) == Observed(readings=tuple(expected), worked=0.581)


@pytest.mark.parametrize(("name", "limit", "remaining", "text", "reset", "window"), ROWS)
def test_every_observed_triple_is_one_bucket_in_one_window(
    name: str, limit: int, remaining: int | None, text: str, reset: float, window: int | None
) -> None:
    reading = Reading(name, limit, remaining, reset)
    assert reading.implied_window() == window
    if window is None or remaining is None:
        assert reading.is_linear(MINUTE) is None
        return
    assert reading.is_linear(window) is True
    assert [other for other in (MINUTE, DAY, MONTH) if reading.is_linear(other)] == [window]
    reset_ms = round(reset * 1000)
    refill = Fraction(limit, window * 1000)
    highest, lowest = limit - reset_ms * refill, limit - (reset_ms + 1) * refill
    assert lowest < remaining + 1
    assert highest >= remaining


@pytest.mark.parametrize(
    ("limit", "interval_ms", "used", "reset_ms"),
    [
        *((500, 120, 1, 120), (30000, 2, 27, 54), (30000, 2, 4, 8), (10000, 8640, 1, 8640), (200000, 0.3, 41, 12)),
        *((40000, 1.5, 26, 39), (10000, 6, 22, 132), (200000, 0.3, 279, 83)),
        *((200000, 0.3, 8, 2), (500000, 0.12, 5, 0), (500000, 0.12, 125, 15), (15000, 4, 1, 4), (30000, 2, 1, 2)),
        *((40000000, 0.0015, 5, 0), (5000, 12, 1, 12), (160000, 0.375, 24, 9), (5000000, 0.012, 23749, 284)),
        *((10000, 6, 1, 6), (30000000, 0.002, 1377, 2), (1500000, 57.6, 1500000 - 43244, 83909144 + 1)),
    ],
)
def test_a_reset_is_the_refill_of_what_is_used(limit: int, interval_ms: float, used: int, reset_ms: int) -> None:
    window_ms = DAY * 1000 if interval_ms in {8640, 57.6} else MINUTE * 1000
    assert Fraction(window_ms, limit) == Fraction(str(interval_ms))
    assert math.floor(Fraction(str(interval_ms)) * used) == reset_ms
    reading = Reading("tokens", limit, limit - used, reset_ms / 1000)
    assert reading.implied_window() == window_ms / 1000
    assert replace(reading, reset=(reset_ms + 1) / 1000).is_linear(window_ms / 1000) is False


def test_a_product_of_floats_just_below_the_reset_is_no_contradiction() -> None:
    assert 11 * (60 / 500) < 1.32
    assert Reading("requests", 500, 489, 1.32).is_linear(MINUTE) is True


@pytest.mark.parametrize(
    ("limit", "remaining", "reset_ms", "level"),
    [(10000, 9998, 12967, 9998.499), (10000, 9985, 127930, 9985.193), (200, 197, 1252666, 197.1)],
)
def test_a_level_between_two_whole_numbers_shows_as_the_lower(
    limit: int, remaining: int, reset_ms: int, level: float
) -> None:
    exact = limit - Fraction(reset_ms, 1000) * limit / DAY
    assert round(float(exact), 3) == level
    assert math.floor(exact) == remaining
    for other in (remaining - 1, remaining + 1):
        assert Reading("requests", limit, other, reset_ms / 1000).is_linear(DAY) is False


def test_the_account_that_counts_over_thirty_days_shows_in_its_headers() -> None:
    assert Reading("tokens", 100000, 97906, 54276.48).implied_window() == MONTH


@given(
    limit=st.sampled_from([3, 200, 500, 7000, 10_000, 30_000, 200_000, 2_000_000, 150_000_000, 15_000_000_000]),
    window=st.sampled_from([MINUTE, DAY, MONTH]),
    data=st.data(),
)
@settings(max_examples=500, deadline=None)
def test_what_the_services_own_clock_gives_fits_its_window(limit: int, window: int, data: st.DataObject) -> None:
    one = max(round(Fraction(window * 10**6, limit)), 1)
    ahead = data.draw(st.integers(one, window * 10**6) | st.integers(one, min(100 * one, window * 10**6)))
    remaining = math.floor(limit - Fraction(ahead * limit, window * 10**6))
    reading = Reading("tokens", limit, remaining, (ahead // 1000) / 1000)
    assert reading.is_linear(window) is True
    assert reading.implied_window() in {window, None}
    if ahead >= 1000:
        assert reading.implied_window() == window


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "linear"),
    [
        (500, 500, 0.0, None),
        (500, 500, 37.0, False),
        (500, 499, 60.0, False),
        (500, 499, 37.0, False),
        (500, 499, 0.12, True),
        (500, 499, 0.119, True),
        (500, 499, 0.118, None),
        (500, 499, 0.121, False),
        (500, 0, 60.0, True),
        (None, 499, 0.12, None),
        (500, None, 0.12, None),
        (500, 499, None, None),
        (0, 0, 0.0, None),
    ],
)
def test_a_fixed_window_is_told_from_a_bucket_where_it_can_be(
    limit: float | None, remaining: float | None, reset: float | None, linear: bool | None
) -> None:
    assert Reading("requests", limit, remaining, reset).is_linear(MINUTE) is linear


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [(500, 500, 0.0), (500, 499, 37.0), (15e9, 15e9 - 5, 0.0), (None, 499, 0.12), (500, None, 0.12), (500, 499, None)],
)
def test_no_window_is_implied_where_none_or_several_fit(
    limit: float | None, remaining: float | None, reset: float | None
) -> None:
    assert Reading("requests", limit, remaining, reset).implied_window() is None
