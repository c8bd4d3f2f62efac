"""The mock's counter against recorded header sets and messages of the service, and against plainer counters."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.testing.mock.counting import (
    DAY,
    ENFORCEMENTS,
    MINUTE,
    SECOND,
    Cap,
    Cost,
    Counter,
    Enforcement,
    cap,
    meter,
)
from ratelimit.testing.mock.headers import go_ms, limit_lines, lines, retry_rows, rows
from ratelimit.testing.mock.refusals import overrun_message

MONTH = 30 * DAY


def counter(*caps: Cap, enforce: Enforcement = "bucket", project: tuple[Cap, ...] = ()) -> Counter:
    return Counter([meter(each, enforce) for each in caps], [meter(each, enforce) for each in project])


def shown(found: Counter, now: int, *, images: bool = False) -> dict[str, str]:
    """The limit headers, each set of three as `limit/remaining/reset` under its short name."""
    given = dict(rows(limit_lines(found, now, images=images)))
    kinds = dict.fromkeys(name.removeprefix("x-ratelimit-").partition("-")[2] for name in given)
    sets = {kind: [given[f"x-ratelimit-{what}-{kind}"] for what in ("limit", "remaining", "reset")] for kind in kinds}
    return {kind: "/".join(values) for kind, values in sets.items()}


# Seventeen header sets recorded from the service, each bucket with the history (microsecond, cost) that leads to it and
# the microsecond it is read at. Sets from before August 2025 were written a moment after the request was counted.
HEADER_SETS: list[tuple[str, Cap, list[tuple[int, int]], int, str]] = [
    ("1 gpt-4o", cap("rpm", 500), [(0, 1)], 0, "500/499/120ms"),
    ("1 gpt-4o", cap("tpm", 30_000), [(0, 27)], 0, "30000/29973/54ms"),
    ("2 gpt-4o", cap("rpm", 500), [(0, 1)], 0, "500/499/120ms"),
    ("2 gpt-4o", cap("tpm", 30_000), [(0, 4)], 0, "30000/29996/8ms"),
    ("3 gpt-4o-mini", cap("rpd", 10_000), [(0, 1)], 0, "10000/9999/8.64s"),
    ("3 gpt-4o-mini", cap("tpm", 200_000), [(0, 57)], 150, "200000/199943/16ms"),
    ("4 the next one", cap("rpd", 10_000), [(0, 1), (4_313_000, 1)], 4_313_000, "10000/9998/12.967s"),
    ("4 the next one", cap("tpm", 200_000), [(0, 57), (4_313_000, 57)], 4_313_150, "200000/199943/16ms"),
    ("5 gpt-4o-mini", cap("rpd", 10_000), [(0, 15)], 1_670_000, "10000/9985/2m7.93s"),
    ("5 gpt-4o-mini", cap("tpm", 200_000), [(0, 41)], 0, "200000/199959/12ms"),
    ("6 gpt-3.5-turbo free", cap("rpd", 200), [(0, 1), (9, 1), (43_334_000, 1)], 43_334_000, "200/197/20m52.666s"),
    ("6 gpt-3.5-turbo free", cap("tpm", 40_000), [(0, 26)], 0, "40000/39974/39ms"),
    ("7 gpt-4", cap("rpd", 10_000), [(0, 1), (679_000, 1)], 679_000, "10000/9998/16.601s"),
    ("7 gpt-4", cap("tpm", 10_000), [(0, 22)], 0, "10000/9978/132ms"),
    ("8 gpt-4.1-mini", cap("rpm", 500), [(0, 1)], 0, "500/499/120ms"),
    ("8 gpt-4.1-mini", cap("tpm", 200_000), [(0, 279)], 0, "200000/199721/83ms"),
    ("9 gpt-5-nano", cap("rpm", 500), [(0, 1)], 0, "500/499/120ms"),
    ("9 gpt-5-nano", cap("tpm", 200_000), [(0, 8)], 0, "200000/199992/2ms"),
    ("10 gpt-5", cap("rpm", 500), [(0, 1)], 0, "500/499/120ms"),
    ("10 gpt-5", cap("tpm", 500_000), [(0, 5)], 0, "500000/499995/0s"),
    ("11 gpt-5.4", cap("rpm", 500), [(0, 1)], 0, "500/499/120ms"),
    ("11 gpt-5.4", cap("tpm", 500_000), [(0, 125)], 0, "500000/499875/15ms"),
    ("12 gpt-5 tier 5", cap("rpm", 15_000), [(0, 1)], 0, "15000/14999/4ms"),
    ("12 gpt-5 tier 5", cap("tpm", 40_000_000), [(0, 5)], 1, "40000000/39999995/0s"),
    ("13 gpt-4o-mini tier 5", cap("rpm", 30_000), [(0, 1)], 0, "30000/29999/2ms"),
    ("13 gpt-4o-mini tier 5", cap("tpm", 150_000_000), [(0, 10)], 0, "150000000/149999990/0s"),
    ("14 forum", cap("rpm", 5000), [(0, 1)], 0, "5000/4999/12ms"),
    ("14 forum", cap("tpm", 160_000), [(0, 24)], 0, "160000/159976/9ms"),
    ("15 text-embedding-3-large", cap("rpm", 5000), [(0, 1)], 0, "5000/4999/12ms"),
    ("15 text-embedding-3-large", cap("tpm", 5_000_000), [(0, 23_749)], 0, "5000000/4976251/284ms"),
    ("16 a day's tokens", cap("rpm", 500), [(0, 1)], 0, "500/499/120ms"),
    ("16 a day's tokens", cap("tpd", 1_500_000), [(0, 4379)], 57_500, "1500000/1495621/4m12.172s"),
    ("17 gpt-4o tier 5", cap("rpm", 10_000), [(0, 1)], 0, "10000/9999/6ms"),
    ("17 gpt-4o tier 5", cap("tpm", 30_000_000), [(0, 1377)], 0, "30000000/29998623/2ms"),
]


@pytest.mark.parametrize(
    ("one", "history", "now", "said"),
    [row[1:] for row in HEADER_SETS],
    ids=[f"{row[0]} {row[1].dimension}" for row in HEADER_SETS],
)
def test_recorded_header_sets_come_out_of_the_counter(
    one: Cap, history: list[tuple[int, int]], now: int, said: str
) -> None:
    found = counter(one)
    for at, cost in history:
        assert found.admit(Cost(cost, requests=cost), at) is None
    assert list(shown(found, now).values()) == [said]


def test_a_day_hides_the_minute_in_the_headers() -> None:
    found = counter(cap("rpm", 500), cap("rpd", 10_000), cap("tpm", 200_000), cap("tpd", 1_000_000), cap("images", 250))
    assert found.admit(Cost(1000, images=2), 0) is None
    assert shown(found, 0) == {"requests": "10000/9999/8.64s", "tokens": "1000000/999000/1m26.4s"}
    assert shown(found, 0, images=True)["input-images"] == "250/248/480ms"


def test_a_project_has_its_own_buckets_and_shows_only_what_is_set() -> None:
    """The seventeenth recorded set: the organization and the project have the same limit and two buckets."""
    ours, project = cap("rpm", 10_000), cap("rpm", 10_000)
    found = counter(ours, cap("tpm", 30_000_000), project=(project,))
    assert found.admit(Cost(1377), 0) is None
    assert shown(found, 0) == {
        "requests": "10000/9999/6ms",
        "tokens": "30000000/29998623/2ms",
        "project-requests": "10000/9999/6ms",
    }


def test_the_lower_limit_of_a_project_refuses_first_and_nothing_is_taken() -> None:
    found = counter(cap("rpm", 500), project=(cap("rpm", 2),))
    assert [found.admit(Cost(1), 0) for _ in range(2)] == [None, None]
    refused = found.admit(Cost(1), 0)
    assert refused is not None
    assert (refused.cap.limit, refused.used, refused.requested, refused.wait_ms) == (2, 2, 1, 30_000)
    assert shown(found, 0) == {"requests": "500/498/240ms", "project-requests": "2/0/1m0s"}


VISIT = " Visit https://platform.openai.com/account/rate-limits to learn more."
# Limit, used, requested, and the wait that the service told: recorded messages.
MESSAGES: list[tuple[Cap, int, int, str]] = [
    (cap("tpm", 30_000), 29_937, 385, "644ms"),
    (cap("tpm", 10_000), 8554, 3082, "9.816s"),
    (cap("tpm", 30_000), 28_039, 3906, "3.89s"),
    (cap("tpm", 30_000), 18_928, 11_159, "174ms"),
    (cap("tpm", 30_000), 22_343, 10_955, "6.596s"),
    (cap("tpm", 200_000), 191_584, 45_490, "11.122s"),
    (cap("tpm", 200_000), 198_469, 7607, "1.822s"),
    (cap("tpm", 30_000), 18_271, 16_921, "10.384s"),
    (cap("tpm", 10_000), 6630, 3787, "2.502s"),
    (cap("tpm", 30_000), 14_567, 24_754, "18.642s"),
    (cap("tpm", 30_000), 20_122, 18_269, "16.782s"),
    (cap("tpm", 200_000), 189_447, 33_160, "6.782s"),
    (cap("tpm", 200_000), 200_000, 2148, "644ms"),
    (cap("tpm", 30_000), 22_999, 12_528, "11.054s"),
    (cap("tpm", 10_000), 9348, 5086, "26.604s"),
    (cap("rpm", 3), 3, 1, "20s"),
    (cap("rpd", 10_000), 10_000, 1, "8.64s"),
    (cap("rpd", 200), 200, 1, "7m12s"),
    (cap("rpd", 1000), 1000, 1, "1m26.4s"),
    (cap("images", 250), 250, 1, "240ms"),
    (cap("images", 5), 5, 1, "12s"),
    (Cap("tpm", 100_000, MONTH), 99_918, 2094, "14h29m11.04s"),
]
ON = {
    "rpm": "requests per min (RPM)",
    "rpd": "requests per day (RPD)",
    "tpm": "tokens per min (TPM)",
    "tpd": "tokens per day (TPD)",
    "images": "input-images per min",
}


def of(one: Cap, amount: int) -> Cost:
    """A cost that takes an amount from this cap."""
    return Cost(amount, images=amount, requests=amount)


@pytest.mark.parametrize(("one", "used", "requested", "wait"), MESSAGES)
def test_recorded_messages_come_out_of_the_counter(one: Cap, used: int, requested: int, wait: str) -> None:
    found = counter(one)
    assert found.admit(of(one, used), 0) is None
    refused = found.admit(of(one, requested), 0)
    assert refused is not None
    learn = "" if one.dimension == "images" else VISIT
    assert overrun_message(refused, model="gpt-4o", family="gpt-4o", organization="org-AAA", free=False) == (
        f"Rate limit reached for gpt-4o in organization org-AAA on {ON[one.dimension]}: Limit {one.limit}, "
        f"Used {used}, Requested {requested}. Please try again in {wait}.{learn}"
    )


def test_a_snapshot_is_named_with_its_bucket_and_a_free_account_with_its_remedy() -> None:
    found = counter(cap("rpm", 3))
    refused = [found.admit(Cost(1), 0) for _ in range(4)][-1]
    assert refused is not None
    assert overrun_message(refused, model="gpt-4.1-2025-04-14", family="gpt-4.1", organization="org-A", free=True) == (
        "Rate limit reached for gpt-4.1-2025-04-14 (for limit gpt-4.1) in organization org-A on requests per min "
        f"(RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.{VISIT} You can increase your rate limit by "
        "adding a payment method to your account at https://platform.openai.com/account/billing."
    )


def test_more_than_the_limit_is_too_large_and_no_wait_is_told() -> None:
    found = counter(cap("tpm", 30_000))
    refused = found.admit(Cost(30_001), 0)
    assert refused is not None
    assert overrun_message(refused, model="gpt-4o", family="gpt-4o", organization="org-A", free=False) == (
        "Request too large for gpt-4o in organization org-A on tokens per min (TPM): Limit 30000, Requested 30001. The "
        f"input or output tokens must be reduced in order to run successfully.{VISIT}"
    )
    assert retry_rows(refused) == []


def test_several_limits_are_reported_in_the_order_requests_day_tokens() -> None:
    caps = (cap("tpm", 10), cap("rpd", 1), cap("rpm", 1))
    for left in (3, 2, 1):
        found = counter(*caps[:left])
        assert found.admit(Cost(10), 0) is None
        refused = found.admit(Cost(10), 0)
        assert refused is not None
        assert refused.cap == caps[left - 1]


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (120, "120ms"),
        (1000, "1s"),
        (8640, "8.64s"),
        (60_000, "1m0s"),
        (127_930, "2m7.93s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (52_151_040, "14h29m11.04s"),
        (83_909_144, "23h18m29.144s"),
    ],
)
def test_durations_are_written_as_go_writes_them(ms: int, text: str) -> None:
    assert go_ms(ms) == text


def test_retry_after_is_whole_seconds_beside_exact_milliseconds() -> None:
    found = counter(cap("tpm", 10_000))
    found.admit(Cost(9348), 0)
    refused = found.admit(Cost(5086), 0)
    assert refused is not None
    assert lines(retry_rows(refused)) == "retry-after: 27\r\nretry-after-ms: 26604\r\n"


steps = st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 130)), max_size=60)


@settings(deadline=None, max_examples=150)
@given(steps)
def test_the_bucket_is_the_textbook_bucket(trace: list[tuple[int, int]]) -> None:
    """A level that refills, in exact fractions: the limit divides the window, so nothing is rounded."""
    found, level, now = counter(cap("tpm", 100)), Fraction(100), 0
    for pause, cost in trace:
        now += pause
        level = min(level + Fraction(pause * 100, MINUTE), Fraction(100))
        refused = found.admit(Cost(cost), now)
        assert (refused is None) == (cost <= level)
        if refused is None:
            level -= cost
        elif refused.wait_ms is not None:
            assert refused.wait_ms == (100 - level.__floor__() + cost - 100) * 600
        assert (
            shown(found, now)["tokens"] == f"100/{level.__floor__()}/{go_ms(int((100 - level) * MINUTE / 100) // 1000)}"
        )


@settings(deadline=None, max_examples=150)
@given(steps)
def test_the_sliding_log_is_a_sum_over_the_last_minute(trace: list[tuple[int, int]]) -> None:
    found, taken, now = counter(cap("tpm", 100), enforce="sliding"), list[tuple[int, int]](), 0
    for pause, cost in trace:
        now += pause
        in_window = [(at, amount) for at, amount in taken if at > now - MINUTE]
        refused = found.admit(Cost(cost), now)
        assert (refused is None) == (sum(amount for _, amount in in_window) + cost <= 100)
        if refused is None:
            taken.append((now, cost))
        elif refused.wait_ms is not None:
            later = now + refused.wait_ms * 1000
            assert sum(amount for at, amount in taken if at > later - MINUTE) + cost <= 100
            assert sum(amount for at, amount in taken if at > later - 1000 - MINUTE) + cost > 100


@settings(deadline=None, max_examples=150)
@given(steps)
def test_the_fixed_window_is_a_sum_over_the_minute_of_the_clock(trace: list[tuple[int, int]]) -> None:
    found, taken, now = counter(cap("tpm", 100), enforce="fixed"), list[tuple[int, int]](), 0
    for pause, cost in trace:
        now += pause
        refused = found.admit(Cost(cost), now)
        this_minute = sum(amount for at, amount in taken if at // MINUTE == now // MINUTE)
        assert (refused is None) == (this_minute + cost <= 100)
        if refused is None:
            taken.append((now, cost))
        elif refused.wait_ms is not None:
            assert refused.wait_ms == -(-(MINUTE - now % MINUTE) // 1000)


def test_quantised_lets_a_second_have_its_sixtieth() -> None:
    found = counter(cap("rpm", 600), enforce="quantised")
    assert [found.admit(Cost(1), 0) is None for _ in range(12)] == [True] * 10 + [False] * 2
    refused = found.admit(Cost(1), 50_000)
    assert refused is not None
    assert refused.wait_ms == 50
    assert found.admit(Cost(1), 100_000) is None
    assert shown(found, 100_000)["requests"] == "600/590/1s"


def test_quantised_lets_a_large_request_through_an_untouched_second_and_makes_it_wait_after() -> None:
    found = counter(cap("tpm", 6000), enforce="quantised")
    assert found.admit(Cost(300), 0) is None
    refused = found.admit(Cost(50), 0)
    assert refused is not None
    assert refused.wait_ms == 2500
    assert found.admit(Cost(50), 2_500_000) is None


def test_a_day_is_not_quantised() -> None:
    found = counter(cap("rpd", 86_400), enforce="quantised")
    assert all(found.admit(Cost(1), 0) is None for _ in range(100))


@pytest.mark.parametrize("enforce", ENFORCEMENTS)
@settings(deadline=None, max_examples=40)
@given(steps)
def test_every_kind_admits_after_the_wait_it_tells_and_changes_nothing_by_refusing(
    enforce: Enforcement, trace: list[tuple[int, int]]
) -> None:
    found, now = counter(cap("tpm", 100), cap("rpm", 30), enforce=enforce), 0
    for pause, cost in trace:
        now += pause
        before = shown(found, now)
        refused = found.admit(Cost(cost), now)
        assert refused is None or shown(found, now) == before
        if cost > 100:
            assert refused is not None
            continue
        for _ in range(2):  # one cap's wait may end before the other's
            if refused is not None:
                assert refused.wait_ms is not None
                now += refused.wait_ms * 1000 + 1000
                refused = found.admit(Cost(cost), now)
        assert refused is None


@pytest.mark.parametrize("enforce", ENFORCEMENTS)
def test_counting_rejected_requests_fills_the_meters_and_no_further(enforce: Enforcement) -> None:
    found = counter(cap("tpm", 600), enforce=enforce)
    assert found.admit(Cost(500), 0) is None
    for _ in range(3):
        assert found.admit(Cost(200), 0) is not None
        found.count_rejected(Cost(200), 0)
    assert shown(found, 0)["tokens"] == "600/0/1m0s"
    assert found.admit(Cost(600), MINUTE) is None


def test_a_lowered_limit_keeps_what_is_used_in_its_place() -> None:
    found = counter(cap("rpm", 100), cap("tpm", 1000))
    assert found.admit(Cost(500), 0) is None
    found.retune([cap("rpm", 10), cap("tpm", 100), cap("rpd", 5)])
    assert shown(found, 0) == {"requests": "10/9/600ms", "tokens": "100/50/30s"}
