"""One limit kept as one number, against the textbook bucket, exactly; and what its corner cases come to."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import F, TextbookBucket, fractions

from ratelimit.limits.bucket import DAY, MINUTE, Bucket, Limit

MANY = settings(max_examples=150, deadline=None)


def numbers(least: int, most: int) -> st.SearchStrategy[float]:
    return fractions(least, most, max_denominator=12)


amounts = numbers(1, 60).map(lambda number: number / 2)
pauses = st.one_of(st.just(F(0)), numbers(0, 2), numbers(0, 90))
windows = st.sampled_from([F(1), F(10), F(60), F(97, 3)])
changes = st.fixed_dictionaries(
    {},
    optional={
        "amount": numbers(1, 60),
        "share": fractions(F(1, 20), 1, max_denominator=20),
        "burst": numbers(0, 60),
        "reserve": numbers(0, 30),
    },
)
steps = st.lists(
    st.tuples(
        pauses,
        st.one_of(
            st.tuples(st.sampled_from(["take", "give", "shift"]), amounts),
            st.tuples(st.just("unshift"), amounts),
            st.tuples(st.just("retune"), changes),
            st.tuples(st.just("close"), numbers(0, 20)),
        ),
    ),
    max_size=12,
)


def retune(bucket: Bucket, now: float, changed: dict[str, float]) -> None:
    changed = dict(changed)
    amount = changed.pop("amount", None)
    limit = None if amount is None else Limit("tokens", amount, bucket.limit.window)
    bucket.retune(now, limit=limit, **changed)


def agree(bucket: Bucket, book: TextbookBucket, now: float) -> None:
    assert bucket.missing(now) == book.missing(now)
    assert bucket.capacity == book.room
    assert bucket.level(now) == book.room - book.missing(now)
    for amount in (F(0), F(1, 3), F(1), F(7), bucket.capacity, bucket.ceiling, bucket.limit.amount):
        assert max(bucket.ready_at(amount), now) == book.ready_at(F(amount), now), amount


@MANY
@given(numbers(1, 60), windows, numbers(0, 30), steps)
def test_it_agrees_with_the_textbook(
    amount: float, window: float, reserve: float, steps: list[tuple[float, tuple[str, Any]]]
) -> None:
    now = F(100)
    bucket = Bucket(Limit("tokens", amount, window), now, reserve=reserve)
    book = TextbookBucket(amount, window, now, reserve)
    drift = F(0)
    agree(bucket, book, now)
    for pause, (verb, what) in steps:
        now += pause
        if verb == "retune":
            retune(bucket, now, what)
            book.retune(now, **what)
        elif verb == "close":
            bucket.closed_until = book.closed_until = now + what
        elif verb == "take":
            bucket.take(what, now)
            book.take(what, now)
        elif verb == "give":
            bucket.give(what, now)
            book.give(what, now)
        elif verb == "shift":
            bucket.shift(what, now)
            book.take(what, now)
            drift += what
        else:
            bucket.shift(-what, now)
            book.give(what, now)
            drift -= what
        agree(bucket, book, now)
        assert bucket.corrected == drift


WINDOW = F(60)
SIXTY = Limit("tokens", F(60), WINDOW)  # one a second


def bucket_of(reserve: float = 10, **changed: float) -> Bucket:
    bucket = Bucket(SIXTY, F(0), reserve=F(reserve))
    retune(bucket, F(0), changed)
    return bucket


@pytest.mark.parametrize(
    ("burst", "taken", "asked", "ready"),
    [
        (None, 0, 50, 0),
        (None, 0, 0, 0),
        (None, 50, 0, 0),
        (None, 50, 1, 1),
        (None, 50, 50, 50),
        (None, 80, 0, 30),  # thirty in debt
        (None, 0, 51, 1),  # reaches into the reserve: full, and one second more
        (None, 0, 60, 10),
        (None, 50, 60, 60),
        (0, 0, 1, 0),  # nothing saved up: each goes when what went before is paid for
        (0, 0, 50, 0),
        (0, 5, 1, 5),
        (0, 0, 55, 5),
        (20, 0, 20, 0),
        (20, 5, 20, 5),
        (20, 5, 19, 4),
        (20, 5, 21, 5),
        (20, 5, 50, 5),
        (20, 5, 51, 6),
        (100, 0, 50, 0),
    ],
)
def test_when_an_amount_may_be_taken(burst: int | None, taken: int, asked: int, ready: int) -> None:
    bucket = bucket_of() if burst is None else bucket_of(burst=F(burst))
    bucket.take(F(taken), F(0))
    assert bucket.ready_at(F(asked)) == ready


def test_a_large_one_need_not_wait_when_the_bucket_has_been_full_for_long_enough() -> None:
    bucket = bucket_of()
    bucket.take(F(1), F(0))
    assert [bucket.ready_at(F(60)), bucket.ready_at(F(55))] == [11, 6]
    bucket.take(F(60), F(11))  # at once, for the time had passed
    assert bucket.full_at == 71
    assert bucket.level(F(11)) == -10


def test_what_a_full_bucket_cannot_hold_is_lost() -> None:
    bucket = bucket_of()
    bucket.take(F(5), F(0))
    bucket.give(F(9), F(2))
    assert bucket.full_at == 2
    bucket.give(F(9), F(4))
    assert bucket.full_at == 2  # full since then, which giving does not change
    bucket.shift(F(-9), F(4))
    assert (bucket.full_at, bucket.corrected) == (2, -9)


def test_a_cooldown_lets_the_bucket_fill_meanwhile() -> None:
    bucket = bucket_of()
    bucket.take(F(50), F(0))
    bucket.closed_until = F(100)
    assert bucket.ready_at(F(1)) == 100
    assert bucket.level(F(100)) == 50


def test_a_limit_that_changes_keeps_what_is_missing() -> None:
    bucket = bucket_of()
    bucket.take(F(30), F(0))
    retune(bucket, F(10), {"amount": F(120)})
    assert (bucket.missing(F(10)), bucket.level(F(10)), bucket.full_at) == (20, 90, 20)
    retune(bucket, F(10), {"share": F(1, 2)})
    assert (bucket.missing(F(10)), bucket.full_at, bucket.share) == (20, 30, F(1, 2))


def test_a_burst_below_the_limit_survives_a_limit_that_falls_and_rises() -> None:
    bucket = bucket_of(F(0), burst=F(40))
    seen = []
    for amount in (30, 60, 20):
        retune(bucket, F(0), {"amount": F(amount)})
        seen.append((bucket.burst, bucket.capacity))
    assert seen == [(30, 30), (40, 40), (20, 20)]
    unbound = bucket_of(F(0))
    retune(unbound, F(0), {"amount": F(90)})
    assert (unbound.burst, unbound.capacity) == (90, 90)


def test_a_reserve_above_the_limit_leaves_a_capacity_of_nothing() -> None:
    bucket = bucket_of(F(70))
    assert (bucket.reserve, bucket.ceiling, bucket.capacity) == (70, 0, 0)
    assert bucket.ready_at(F(60)) == 60


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (Limit("requests", 500, MINUTE), "500 RPM"),
        (Limit("tokens", 200_000, MINUTE), "200,000 TPM"),
        (Limit("requests", 10_000, DAY), "10,000 RPD"),
        (Limit("tokens", 1e6, DAY), "1,000,000 TPD"),
        (Limit("requests", 500, MINUTE, "project"), "500 project RPM"),
        (Limit("input-images", 2.5, 12), "2.5 input-images per 12 s"),
        (Limit("tokens", F(5, 2), F(60)), "2.5 TPM"),
        (Limit("tokens", F(5), F(1, 4)), "5 tokens per 0.25 s"),
    ],
)
def test_limits_are_called_what_people_call_them(limit: Limit, text: str) -> None:
    assert str(limit) == text
    assert repr(Bucket(limit, F(5, 4))) == f"<Bucket {text}: full at 1.250>"


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
def test_a_limit_is_a_finite_number_above_zero(value: float) -> None:
    with pytest.raises(ValueError, match=f"^a limit's amount is a finite number above zero, not {value!r}$"):
        Limit("tokens", value, 60)
    with pytest.raises(ValueError, match=f"^a limit's window is a finite number above zero, not {value!r}$"):
        Limit("tokens", 60, value)


@pytest.mark.parametrize(
    ("amount", "said"),
    [(0.5, "0.5"), (1_000, "1,000"), (15_000_000_000, "15,000,000,000"), (1e12, "1,000,000,000,000"), (1e18, "1e+18")],
)
def test_large_limits_are_written_out(amount: float, said: str) -> None:
    assert str(Limit("tokens", amount, MINUTE)) == f"{said} TPM"
