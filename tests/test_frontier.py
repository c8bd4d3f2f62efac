"""Where a lane has not been yet: which lines a request crosses, once each, and who is sent back to cross them again."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit.limits.bucket import DAY, MINUTE, Bucket, Limit
from ratelimit.limits.frontier import Frontier, Line
from ratelimit.limits.meter import Meter
from ratelimit.limits.quota import Cost, Hold, Quota

RPM = Limit("requests", 120, MINUTE)  # two a second
TPM = Limit("tokens", 6000, MINUTE)  # a hundred a second
RPD = Limit("requests", 1, DAY)
FIRST: Line = (None, 0)


def lane(*limits: Limit) -> tuple[Quota, Frontier, list[Bucket]]:
    quota = Quota(limits, 0.0, slack=0)
    return quota, Frontier(quota), quota.buckets


def send(quota: Quota, frontier: Frontier, cost: Cost, now: float) -> AbstractSet[Line]:
    lines = frontier.crossed_by(cost, now)
    frontier.crossed(lines)
    quota.sent(Hold(cost, 1), now)
    return lines


def test_the_first_request_of_all_crosses_a_line() -> None:
    quota, frontier, _ = lane(RPM)
    assert frontier.crossed_by({"requests": 1}, 0.0) == {FIRST}
    assert send(quota, frontier, {"requests": 1}, 0.0) == {FIRST}
    assert send(quota, frontier, {"requests": 1}, 10.0) == set()


def test_a_second_and_a_window_are_lines_of_their_own_and_crossed_once() -> None:
    quota, frontier, (bucket,) = lane(RPM)
    send(quota, frontier, {"requests": 1}, 0.0)
    seen = [
        (n, line)
        for n in range(2, 130)
        for line in send(quota, frontier, {"requests": 1}, n * 0.3)
        if line is not FIRST
    ]
    assert seen == [(3, (bucket, 60)), (121, (bucket, 1))]
    assert frontier.crossed_by({"requests": 100}, 40.0) == set()


def test_each_second_holds_what_a_second_brings_and_no_more() -> None:
    quota, frontier, (bucket,) = lane(RPM)
    send(quota, frontier, {"requests": 1}, 0.0)
    for now in (10.0, 10.5, 11.5, 12.0, 13.1, 13.9):  # never more than two within a second
        assert send(quota, frontier, {"requests": 1}, now) == set()
    assert frontier.crossed_by({"requests": 1}, 14.09) == {(bucket, 60)}


@pytest.mark.parametrize(("tokens", "crossed"), [(100, set[int]()), (101, {60}), (6000, {60}), (6001, {60, 1})])
def test_one_large_request_may_cross_lines_by_itself(tokens: float, crossed: set[int]) -> None:
    quota, frontier, (_, bucket) = lane(RPM, TPM)
    send(quota, frontier, {"requests": 1}, -100.0)
    assert frontier.crossed_by({"requests": 1, "tokens": tokens}, 0.0) == {(bucket, part) for part in crossed}


def test_a_request_that_takes_nothing_of_a_limit_crosses_none_of_its_lines() -> None:
    quota, frontier, (_, tokens) = lane(RPM, TPM)
    send(quota, frontier, {"tokens": 100}, 0.0)
    quota.sent(Hold({"tokens": 500}, 2), 0.0)
    assert frontier.crossed_by({"requests": 1}, 0.0) == set()
    assert frontier.crossed_by({"tokens": 1}, 0.0) == {(tokens, 60)}


def test_a_day_has_no_lines() -> None:
    quota, frontier, _ = lane(RPD)
    assert send(quota, frontier, {"requests": 1}, 0.0) == {FIRST}
    assert frontier.crossed_by({"requests": 1000}, 0.0) == set()


def test_who_is_turned_back_leaves_the_line_to_the_next() -> None:
    quota, frontier, (bucket,) = lane(RPM)
    lines = send(quota, frontier, {"requests": 3}, 0.0)
    assert lines == {FIRST, (bucket, 60)}
    assert frontier.crossed_by({"requests": 3}, 0.1) == set()
    frontier.turned_back(lines)
    assert frontier.crossed_by({"requests": 1}, 0.1) == lines
    assert frontier.crossed_by({"requests": 1}, 30.0) == {FIRST}


def beyond(line: Line, meter: Meter, cost: Cost, now: float) -> bool:
    """Whether a line is crossed, by a sum over all of its window."""
    bucket, part = line
    if bucket is None:
        return True
    amount, sent = cost.get(bucket.limit.unit, 0), meter.between(bucket.limit.unit, now - MINUTE / part, now)
    return amount > 0 and sent + amount > bucket.limit.amount / part


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "look", "others", "retune", "back", "again"]),
        st.integers(0, 2),
        st.integers(0, 9),
        st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    ),
    min_size=20,
    max_size=60,
)


@given(STEPS)
def test_no_line_is_passed_unseen_and_none_is_seen_early(steps: list[tuple[str, int, int, float]]) -> None:
    quota, frontier, (requests, tokens) = lane(RPM, Limit("tokens", 240, MINUTE))
    ahead: set[Line] = {FIRST, *((bucket, part) for bucket in (requests, tokens) for part in (60, 1))}
    now, back = 0.0, set[Line]()
    for what, few, many, pause in steps:
        now += pause
        cost = {"requests": few, "tokens": many}
        crossed = {line for line in ahead if beyond(line, quota.meter, cost, now)}
        if what in {"send", "look"}:
            assert frontier.crossed_by(cost, now) == crossed
        if what == "send":
            frontier.crossed(crossed)
            quota.sent(Hold(cost, 1), now)
            ahead, back = ahead - crossed, crossed
        elif what == "others":  # another program on the same shared limits
            quota.meter.add(cost, now)
        elif what == "retune":
            quota.retune(tokens, 60 + 60 * many, now)
        elif what == "back":
            frontier.turned_back(back)
            ahead |= back
        elif what == "again":
            bucket = (requests, tokens)[many % 2]
            frontier.again(bucket)
            ahead |= {(bucket, part) for part in (60, 1)}
