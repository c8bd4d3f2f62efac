"""How much of the slack is kept back: as far as ways differed while the server's bucket may have been full."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.feedback import Feedback
from ratelimit.limits.headers import Observed, Reading
from ratelimit.limits.quota import Hold, Quota
from ratelimit.limits.refusals import Refusal

TPM = Limit("tokens", 600, MINUTE)  # ten a second; the slack is as much
BRIM = 150  # of 600: three of them leave before a server would be three quarters empty


class Lane:
    """One limit, and requests that leave at once."""

    def __init__(self, limit: Limit = TPM) -> None:
        self.quota = Quota([limit], 100.0, slack=1)
        self.feedback = Feedback(self.quota, 100.0)
        (self.bucket,) = self.quota.buckets

    def opens(self, at: float) -> tuple[list[Hold], Hold]:
        """Send four; the last finds so much missing that the server's cannot be full."""
        *early, late = [self.send(at, tokens) for tokens in (BRIM, BRIM, BRIM, 40)]
        return early, late

    def send(self, at: float, tokens: float) -> Hold:
        hold = self.quota.reserve({"tokens": tokens}, at)
        assert isinstance(hold, Hold), hold
        self.quota.sent(hold, at)
        return hold

    def hear(self, hold: Hold, way: float, *, reset: float | None = -1) -> float:
        """Return what is kept back after a reply that comes after two seconds, so many of them on the way."""
        mark = self.quota.mark(hold, self.bucket)
        assert mark is not None
        assert hold.sent_at is not None
        missing, _ = mark
        said = Reading("tokens", 600, 600 - missing, missing / 10 if reset == -1 else reset)
        self.feedback.observe(hold, Observed((said,), worked=2 - way), hold.sent_at + 2)
        return self.bucket.reserve


@pytest.mark.parametrize(
    ("ways", "kept"),
    [
        ((0.1, 0.3, 0.2), 6),  # twice the longest
        ((0.0, 0.01, 0.0), 1),  # a tenth of the slack at least
        ((0.1, 0.6, 0.1), 10),  # more than the slack
    ],
)
def test_what_left_early_tells_how_much_is_kept_back_when_much_is_missing(ways: list[float], kept: float) -> None:
    lane = Lane()
    early, late = lane.opens(100)
    assert [lane.hear(hold, way) for hold, way in zip(early, ways, strict=True)] == [10, 10, 10]
    assert lane.hear(late, 0.9) == pytest.approx(kept)  # its own way does no harm any more


def test_nothing_is_known_before_one_of_the_early_was_answered() -> None:
    lane = Lane()
    _, late = lane.opens(100)
    assert lane.hear(late, 0.0) == 10


@pytest.mark.parametrize("reset", [59.0, None])
def test_a_server_that_may_not_refill_continuously_tells_nothing(reset: float | None) -> None:
    lane = Lane()
    early, late = lane.opens(100)
    assert [lane.hear(hold, 0.0, reset=reset) for hold in (*early, late)] == [10, 10, 10, 10]


def test_a_full_bucket_is_opened_with_the_whole_slack_until_its_own_ways_are_known() -> None:
    lane = Lane()
    early, late = lane.opens(100)
    lane.hear(early[0], 0.1)
    assert lane.hear(late, 0.1) == pytest.approx(2)
    again, last = lane.opens(200)
    assert lane.bucket.reserve == 10
    lane.hear(early[1], 0.1)  # it left before the bucket was full
    assert lane.hear(last, 0.1) == 10
    lane.hear(again[0], 0.2)
    assert lane.hear(last, 0.1) == pytest.approx(4)


def test_after_a_refusal_nothing_of_the_slack_is_let_go_any_more() -> None:
    lane = Lane()
    early, late = lane.opens(100)
    lane.hear(early[0], 0.1)
    lane.hear(late, 0.1)
    lane.send(102, 90)
    last = lane.send(102, 15)
    said = Observed(refusal=Refusal("reached", "tokens", MINUTE, 600, 586, 15, 0.1, "m"))
    lane.feedback.refused(last, said, 103.0, most=60)
    assert lane.quota.eased == {}
    assert lane.bucket.reserve > 10
    again, last = lane.opens(900)
    lane.hear(again[0], 0.1)
    lane.bucket.retune(902, reserve=10)  # as it is after long enough
    assert lane.hear(last, 0.1) == 10


def test_who_shares_a_limit_knows_nothing_of_the_ways_of_others() -> None:
    lane = Lane()
    lane.quota.alone = False
    early, late = lane.opens(100)
    assert [lane.hear(hold, 0.0) for hold in (*early, late)] == [10, 10, 10, 10]


def test_a_limit_that_has_changed_is_kept_to_with_the_slack_of_its_own() -> None:
    lane = Lane()
    early, late = lane.opens(100)
    lane.hear(early[0], 0.1)
    lane.hear(late, 0.1)
    lane.quota.retune(lane.bucket, 1200, 103.0)
    assert lane.bucket.reserve == 20


def test_of_a_day_nothing_is_let_go() -> None:
    lane = Lane(replace(TPM, window=DAY))
    hold = lane.send(100, 500)
    lane.hear(hold, 0.0)
    assert lane.quota.eased == {}
