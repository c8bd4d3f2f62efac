"""Several limits taken from together or not at all, each hold ended once; against textbook buckets, exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import F, TextbookBucket, TextbookQuota, fractions

from ratelimit.errors import AlreadySettled, NeverFits
from ratelimit.limits.bucket import DAY, MINUTE, Bucket, Limit
from ratelimit.limits.quota import UNSENT, Cost, Hold, Lows, Quota

MANY = settings(max_examples=120, deadline=None)
LIMITS = (("requests", 6, 60), ("tokens", 40, 60), ("requests", 9, 300))


def quota_of(*limits: tuple[str, float, float], slack: float = F(0)) -> Quota:
    return Quota([Limit(unit, F(amount), F(window)) for unit, amount, window in limits], F(0), slack=slack)


def book_of(quota: Quota) -> TextbookQuota:
    return TextbookQuota(
        [
            (b.limit.unit, TextbookBucket(F(b.limit.amount), F(b.limit.window), F(0), F(b.reserve)))
            for b in quota.buckets
        ]
    )


def state(quota: Quota) -> list[tuple[float, ...]]:
    return [(b.full_at, b.closed_until, b.corrected, b.returned, b.capacity, b.interval) for b in quota.buckets]


def taken(answer: Hold | float) -> Hold:
    assert isinstance(answer, Hold)
    return answer


def numbers(least: int, most: int) -> st.SearchStrategy[float]:
    return fractions(least, most, max_denominator=6)


costs = st.fixed_dictionaries(
    {}, optional={"requests": numbers(0, 3), "tokens": numbers(0, 40), "images": numbers(1, 2)}
)
small = st.fixed_dictionaries({"requests": st.just(F(1)), "tokens": numbers(0, 40)})
index = st.integers(0, 2)
steps = st.lists(
    st.tuples(
        st.one_of(st.just(F(0)), numbers(0, 5), numbers(0, 400)),
        st.one_of(
            st.tuples(st.just("reserve"), costs),
            st.tuples(st.just("reserve"), small),
            st.tuples(st.just("insist"), costs),
            st.tuples(st.just("settle"), costs),
            st.tuples(st.just("unsent"), st.none()),
            st.tuples(st.just("share"), st.tuples(index, fractions(F(1, 10), 1, max_denominator=10))),
            st.tuples(st.just("burst"), st.tuples(index, numbers(0, 9))),
            st.tuples(st.just("close"), st.tuples(index, numbers(0, 30))),
        ),
    ),
    max_size=25,
)


@MANY
@given(numbers(0, 3), steps)
def test_it_agrees_with_the_textbook(slack: float, steps: list[tuple[float, tuple[str, Any]]]) -> None:
    quota = quota_of(*LIMITS, slack=slack)
    book, now, holds = book_of(quota), F(0), list[Hold]()
    for pause, (verb, what) in steps:
        now += pause
        if verb in {"reserve", "insist"}:
            before = state(quota)
            answer, expected = quota.reserve(what, now), book.reserve(what, now)
            if not isinstance(answer, Hold):
                assert answer == expected
                assert state(quota) == before  # a refusal changes nothing
                assert answer > now
                nearly = (now + answer) / 2
                assert quota.reserve(what, nearly) == answer
                if verb == "reserve":
                    continue
                now = F(answer)
                answer, expected = quota.reserve(what, now), book.reserve(what, now)
            assert expected is None
            assert isinstance(answer, Hold)
            holds.append(answer)
        elif verb in {"settle", "unsent"} and holds:
            hold = holds.pop(len(holds) // 2)
            actual = UNSENT if verb == "unsent" else what
            quota.settle(hold, actual, now, verb)
            book.settle(dict(hold.cost), dict(actual), now)
        elif verb == "share":
            quota.buckets[what[0]].retune(now, share=what[1])
            book.buckets[what[0]][1].retune(now, share=what[1])
        elif verb == "burst":
            quota.buckets[what[0]].retune(now, burst=what[1])
            book.buckets[what[0]][1].retune(now, burst=what[1])
        elif verb == "close":
            quota.buckets[what[0]].closed_until = book.buckets[what[0]][1].closed_until = now + what[1]
        for bucket, (_, other) in zip(quota.buckets, book.buckets, strict=True):
            assert bucket.missing(now) == other.missing(now)


@MANY
@given(
    fractions(1, 50, max_denominator=4),
    numbers(0, 20),
    st.lists(st.tuples(numbers(0, 3), numbers(1, 50)), min_size=1, max_size=30),
    st.booleans(),
)
def test_no_window_of_any_length_holds_more(
    amount: float, slack: float, asks: list[tuple[float, float]], oversize: bool
) -> None:
    quota = quota_of(("tokens", amount, 20), slack=slack)
    bucket = quota.buckets[0]
    most = bucket.limit.amount if oversize else bucket.capacity
    assume(most > 0)
    now, went = F(0), list[tuple[float, float]]()
    for pause, asked in asks:
        cost = {"tokens": F(min(asked, most))}
        now = max(now + pause, F(quota.ready_at(cost)))
        assert isinstance(quota.reserve(cost, now), Hold)
        went.append((now, cost["tokens"]))
    for first, (start, _) in enumerate(went):
        total = F(0)
        for end, one in went[first:]:
            total += one
            largest = max(size for at, size in went if start <= at <= end)
            assert total <= max(bucket.capacity, largest) + (end - start) * bucket.limit.rate


@settings(max_examples=150, deadline=None)
@given(
    st.floats(0.1, 1e9),
    st.sampled_from([1.0, 60.0, 86_400.0]),
    st.floats(0, 5),
    st.floats(0, 1e9),
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 30)), min_size=1, max_size=20),
)
def test_floats_are_ready_at_the_very_instant_they_are_told(
    amount: float, window: float, slack: float, now: float, asks: list[tuple[float, float]]
) -> None:
    limits = [Limit("tokens", amount, window), Limit("requests", 20, 7)]
    quota = Quota(limits, now, slack=slack)
    for part, pause in asks:
        now += pause
        cost = {"tokens": part * amount, "requests": 1.0}
        told = quota.reserve(cost, now)
        if not isinstance(told, Hold):
            assert told > now
            assert quota.reserve(cost, math.nextafter(told, -math.inf)) == told
            assert isinstance(quota.reserve(cost, told), Hold)
            now = told


def test_all_or_nothing() -> None:
    quota = quota_of(*LIMITS)
    quota.buckets[1].take(F(40), F(0))
    before = state(quota)
    assert quota.reserve({"requests": 1, "tokens": 4}, F(0)) == 6
    assert state(quota) == before
    assert isinstance(quota.reserve({"requests": 1}, F(0)), Hold)
    assert [bucket.missing(F(0)) for bucket in quota.buckets] == [1, 40, 1]


def test_nothing_of_a_limit_passes_whatever_its_state() -> None:
    quota = quota_of(*LIMITS)
    quota.buckets[1].take(F(100), F(0))
    quota.buckets[1].closed_until = F(1000)
    assert isinstance(quota.reserve({"requests": 1, "tokens": 0}, F(0)), Hold)
    before = state(quota)
    assert isinstance(quota.reserve({}, F(0)), Hold)
    assert state(quota) == before
    assert quota.ready_at({}) == -math.inf
    assert quota.binding({"tokens": 0}) is None


def test_the_limit_itself_passes_and_one_more_never_does() -> None:
    quota = Quota([Limit("requests", 3, MINUTE), Limit("tokens", 200_000, MINUTE)], 0.0, slack=0)
    assert isinstance(quota.reserve({"requests": 3, "tokens": 200_000}, 0.0), Hold)
    before = state(quota)
    for ask in (quota.check, quota.ready_at, quota.binding, lambda cost: quota.reserve(cost, 1e6)):
        with pytest.raises(NeverFits) as never:
            ask({"requests": 1, "tokens": 200_001})
        assert str(never.value) == (
            "this request needs 200,001 of TPM, which allows at most 200,000 at once; "
            "lower max_tokens, split the prompt, or choose a higher tier"
        )
    assert state(quota) == before
    quota.check({"requests": 3, "tokens": 200_000})
    with pytest.raises(NeverFits) as never:
        quota_of(("requests", 3, 60)).check({"requests": F(7, 2)})
    assert str(never.value).startswith("this request needs 3.5 of RPM, which allows at most 3 at once; ")


def test_the_limit_itself_passes_when_some_of_it_is_kept_back() -> None:
    quota = quota_of(("tokens", 60, 60), slack=F(2))
    told = quota.reserve({"tokens": F(60)}, F(0))
    assert told == 2
    assert isinstance(quota.reserve({"tokens": F(60)}, F(2)), Hold)
    assert quota.reserve({"tokens": F(1)}, F(2)) == 5  # full at 62, less the 58 that need not be there, and one more


def test_the_binding_limit_is_the_one_that_lasts_longest() -> None:
    quota = quota_of(*LIMITS)
    quota.buckets[0].take(F(6), F(0))
    assert quota.binding({"requests": 1, "tokens": 1}) is quota.buckets[0]
    quota.buckets[1].closed_until = F(11)
    assert quota.binding({"requests": 1, "tokens": 1}) is quota.buckets[1]
    assert quota.reserve({"requests": 1, "tokens": 1}, F(0)) == 11


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_closed_limit_alone_is_reason_enough_to_wait(which: int) -> None:
    quota = quota_of(*LIMITS)
    quota.buckets[which].closed_until = F(7)
    assert quota.reserve({"requests": 1, "tokens": 1}, F(6)) == 7
    assert isinstance(quota.reserve({"requests": 1, "tokens": 1}, F(7)), Hold)


def test_a_hold_ends_once() -> None:
    quota = quota_of(*LIMITS)
    hold = taken(quota.reserve({"requests": F(1), "tokens": F(8)}, F(0)))
    assert repr(hold) == f"<Hold 1: {dict(hold.cost)}, open>"
    quota.settle(hold, {"requests": 1, "tokens": 3}, F(0))
    before = state(quota)
    for how in ("used", "unsent"):
        with pytest.raises(AlreadySettled) as twice:
            quota.settle(hold, UNSENT, F(0), how)
        assert str(twice.value) == "hold 1 has already ended as 'used'; end each one exactly once"
    assert state(quota) == before
    assert repr(hold) == f"<Hold 1: {dict(hold.cost)}, used>"
    kept = taken(quota.reserve({"requests": 1}, F(0)))
    quota.settle(kept, kept.cost, F(0), "unknown")
    with pytest.raises(AlreadySettled) as twice:
        quota.settle(kept, kept.cost, F(0))
    assert str(twice.value) == "hold 2 has already ended as 'unknown'; end each one exactly once"


@pytest.mark.parametrize(
    ("actual", "missing"),
    [
        ({"requests": 1, "tokens": 8}, [1, 8, 1]),
        ({"requests": 1, "tokens": 3}, [1, 3, 1]),
        ({"requests": 1, "tokens": 50}, [1, 50, 1]),  # in debt, if that is what it was
        ({"requests": 1}, [1, 0, 1]),
        (UNSENT, [0, 0, 0]),
    ],
)
def test_what_was_used_replaces_what_was_taken(actual: Cost, missing: list[float]) -> None:
    quota = quota_of(*LIMITS)
    hold = taken(quota.reserve({"requests": F(1), "tokens": F(8)}, F(0)))
    quota.settle(hold, actual, F(0))
    assert [bucket.missing(F(0)) for bucket in quota.buckets] == missing


def test_what_is_kept_back_is_what_comes_back_within_the_slack() -> None:
    quota = Quota(
        [Limit("requests", 600, MINUTE), Limit("tokens", 50, 1), Limit("requests", 86_400, DAY)], 0.0, slack=2
    )
    assert [bucket.reserve for bucket in quota.buckets] == [20, 25, 2]  # half a window at the most
    assert repr(quota) == "<Quota 600 RPM, 50 tokens per 1 s, 86,400 RPD>"


def test_following_a_limit_keeps_the_part_that_was_kept_back_beyond_the_slack() -> None:
    quota = quota_of(("tokens", 600, 60), slack=F(1))
    (bucket,) = quota.buckets
    bucket.retune(F(0), reserve=F(70))
    quota.retune(bucket, F(1200), F(0))
    assert (bucket.limit.amount, bucket.reserve) == (1200, 20 + 120)
    bucket.retune(F(0), reserve=F(5))
    quota.retune(bucket, F(600), F(0))
    assert bucket.reserve == 10


def test_a_limit_may_join_later() -> None:
    quota = quota_of(("tokens", 60, 60), slack=F(1))
    hold = taken(quota.reserve({"requests": 1, "tokens": 1}, F(0)))
    bucket = quota.add(Limit("requests", F(2), F(60)), F(10))
    assert quota.buckets[1] is bucket
    assert bucket.full_at == 10
    quota.settle(hold, UNSENT, F(10))
    assert bucket.missing(F(10)) == 0
    assert isinstance(quota.reserve({"requests": 1}, F(10)), Hold)
    assert quota.reserve({"requests": 1}, F(10)) == F(10) + 1  # 1.0 of 2 left, and the slack is a thirtieth


def test_what_a_sent_request_remembers() -> None:
    quota = quota_of(("requests", 60, 60), ("tokens", 600, 60))
    first = taken(quota.reserve({"requests": 1, "tokens": 50}, F(0)))
    assert (first.sent_at, quota.mark(first, quota.buckets[0])) == (None, None)
    quota.sent(first, F(2))
    assert first.sent_at == 2
    assert [quota.mark(first, bucket) for bucket in quota.buckets] == [(0, 0), (30, 0)]
    quota.buckets[1].shift(F(7), F(2))
    second = taken(quota.reserve({"requests": 1, "tokens": 5}, F(2)))
    quota.sent(second, F(2))
    assert quota.mark(second, quota.buckets[1]) == (42, 7)
    assert quota.meter.between("tokens", 0, 2) == 55
    assert quota.mark(second, quota.add(Limit("requests", 100, DAY), F(3))) is None  # which was not there yet


def test_settlements_since_a_send_are_those_of_requests_no_later_than_it() -> None:
    quota = quota_of(("requests", 60, 60), ("tokens", 600, 60))
    one, two, three, four = (taken(quota.reserve({"requests": 1, "tokens": 50}, F(0))) for _ in range(4))
    quota.sent(one, F(0))
    quota.settle(one, {"requests": 1, "tokens": 40}, F(0))  # in the same instant, but before the next was sent
    quota.sent(two, F(0))
    quota.sent(three, F(0))
    quota.settle(three, {"requests": 0, "tokens": 0}, F(1))
    quota.settle(two, {"requests": 1, "tokens": 57}, F(1))
    seen = [(quota.settled_since(hold, "tokens"), quota.settled_since(hold, "requests")) for hold in (one, two, three)]
    assert seen == [(-10, 0), (7, 0), (-43, -1)]
    assert quota.settled_since(three, "images") == 0
    quota.settle(four, UNSENT, F(1), "unsent")  # never left: nobody's mark has it
    quota.sent(five := taken(quota.reserve({"tokens": 1}, F(1))), F(1))
    assert quota.settled_since(five, "tokens") == 0
    assert [number for _, number, _ in quota._settled["tokens"]] == [1, 3, 2]
    assert quota.settled_since(three, "tokens") == -43


def test_the_least_that_was_missing_since_a_send() -> None:
    quota = quota_of(("tokens", 60, 60))
    (bucket,) = quota.buckets
    holds = []
    for at, tokens in ((0, 50), (40, 30), (41, 5), (60, 1), (61, 1)):
        holds.append(taken(quota.reserve({"tokens": F(tokens)}, F(at))))
        quota.sent(holds[-1], F(at))
    # just before each: 0, 10, 39, 25, 25
    assert quota.lowest_since(holds[0], bucket) == 10
    bucket.shift(F(-4), F(61))
    assert quota.lowest_since(holds[1], bucket) == 21
    quota.settle(holds[1], UNSENT, F(61))
    assert quota.lowest_since(holds[1], bucket) == 0
    assert quota.lowest_since(holds[4], bucket) == math.inf
    bucket.take(F(20), F(61))
    before = bucket.missing(F(61))
    later = taken(quota.reserve({"tokens": F(1)}, F(61)))  # what was corrected before it left, it has seen already
    quota.sent(later, F(61))
    assert quota.lowest_since(holds[4], bucket) == before == 20


def test_only_what_may_still_be_the_least_is_remembered() -> None:
    lows = Lows()
    for number, missing in enumerate([5, 4.5, 6, 6, 7, 6.5]):
        lows.note(number, missing)
    assert [lows.since(number) for number in (-1, 1, 3, 5)] == [4.5, 6, 6.5, math.inf]
    for number in range(10, 10_000):
        lows.note(number, number)
    assert len(lows._lows) == len(lows._numbers) == 4096


def test_replies_tell_of_a_unit_once_one_has() -> None:
    quota = quota_of(*LIMITS)
    assert not quota.hears("requests")
    quota.heard[quota.buckets[2]] = 1
    assert quota.hears("requests")
    assert not quota.hears("tokens")


def test_how_much_of_a_limit_was_used_lately() -> None:
    quota = Quota([Limit("requests", 1440, DAY), Limit("tokens", 100, 10)], 0.0)
    assert quota.used_lately(quota.buckets[0], 0.0) == 0
    for at in (0.0, 55.0, 65.0):
        quota.sent(taken(quota.reserve({"requests": 0.25, "tokens": 10}, at)), at)
    assert quota.used_lately(quota.buckets[0], 66.0) == quota.buckets[0].missing(66.0) / 1440
    assert quota.used_lately(quota.buckets[1], 66.0) == 0.1


def test_buckets_of_one_unit_are_taken_from_alike() -> None:
    quota = quota_of(("requests", 2, 60), ("requests", 3, DAY))
    answers = [quota.reserve({"requests": 1}, F(0)) for _ in range(3)]
    assert [isinstance(answer, Hold) for answer in answers] == [True, True, False]
    assert answers[2] == 30
    assert isinstance(quota.reserve({"requests": 1}, F(30)), Hold)
    assert quota.reserve({"requests": 1}, F(30)) == 28_800
    assert [isinstance(bucket, Bucket) for bucket in quota.buckets] == [True, True]
