"""What a lane makes of a bucket that the server sees emptier: somebody else, or another way of counting."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ratelimit.limits.bucket import DAY, MINUTE, Bucket, Limit
from ratelimit.limits.drift import Change
from ratelimit.limits.feedback import Feedback
from ratelimit.limits.headers import NOTHING, Observed, Reading
from ratelimit.limits.pressure import Pressure
from ratelimit.limits.quota import Cost, Hold, Quota
from ratelimit.limits.refusals import Refusal

TPM = Limit("tokens", 600, MINUTE)  # ten a second
RPM = Limit("requests", 120, MINUTE)
REACHED = Refusal("reached", "tokens", MINUTE, 600, 595, 10, 0.5, "m")  # five too many: half a second, in a line
ONE: Cost = {"requests": 1, "tokens": 10}


class Lane:
    """One lane at 100 s, with the slack of a second."""

    def __init__(self, *limits: Limit) -> None:
        self.quota = Quota(limits or (TPM,), 100.0, slack=1)
        self.feedback = Feedback(self.quota, 100.0)
        self.bucket = self.quota.buckets[0]

    def send(self, at: float, cost: Cost = ONE) -> Hold:
        hold = self.quota.reserve(cost, at)
        assert isinstance(hold, Hold), hold
        self.quota.sent(hold, at)
        return hold

    def reply(self, at: float, used: float) -> list[Change]:
        """Send one, and hear at once that so much is missing."""
        return self.feedback.observe(self.send(at), linear(used), at)

    def refused(self, hold: Hold, observed: Observed, now: float, most: float = 60) -> list[Change]:
        return self.feedback.refused(hold, observed, now, most=most)

    def pressure(self, bucket: Bucket | None = None) -> Pressure:
        return self.feedback._pressures[bucket or self.bucket]


def linear(used: float, limit: Limit = TPM) -> Observed:
    """Headers of a server that refills continuously and lacks so much."""
    return Observed((Reading(limit.unit, limit.amount, limit.amount - used, used / limit.rate),))


def cooled(seconds: float, name: str = "TPM") -> Change:
    return Change("cooled", name, 0, seconds)


BURST = Change("burst", "TPM", 600, 0.2)
BY_SECOND = [BURST, Change("share", "TPM", 1, 1 / 1.01)]
BY_MINUTE = [BURST, Change("share", "TPM", 1, 60 / 61)]
BLIND = [Change("reserve", "TPM", 10, 34), Change("share", "TPM", 1, 0.9)]


@pytest.mark.parametrize(
    ("sent", "observed", "changes"),
    [
        # its own numbers claim room: it counts in windows
        (10, Observed(refusal=replace(REACHED, used=590)), [cooled(0.5), *BY_SECOND]),
        (590, Observed((Reading("tokens", 600, 595, 0.5),), 2.0), [cooled(2), *BY_SECOND]),
        # in a line: somebody else, by so much
        (
            10,
            Observed(refusal=REACHED),
            [cooled(0.5), Change("drift", "TPM", 0, 595), Change("reserve", "TPM", 10, 240)],
        ),
        (10, linear(598), [cooled(1), Change("drift", "TPM", 0, 598), Change("reserve", "TPM", 10, 240)]),
        (
            10,
            Observed(refusal=replace(REACHED, used=597.0, requested=5, wait=0.2), retry_after=7.0),
            [cooled(7), Change("drift", "TPM", 0, 597), Change("reserve", "TPM", 10, 240)],
        ),
        # not in a line, and we have not sent what would explain it: feel the way
        (10, Observed(refusal=replace(REACHED, wait=37.0)), [cooled(37), *BLIND]),
        (10, Observed(refusal=replace(REACHED, wait=None)), [cooled(1), *BLIND]),
        (10, Observed(refusal=replace(REACHED, used=None)), [cooled(0.5), *BLIND]),
        (10, Observed((Reading("tokens", 600, 2, 60.0),)), [cooled(1), *BLIND]),
        # not in a line, and we have: windows
        (11, Observed(refusal=replace(REACHED, wait=37.0)), [cooled(37), *BY_MINUTE]),
        (590, Observed((Reading("tokens", 600, 2, 60.0),)), [cooled(1), *BY_MINUTE]),
        # silent
        (10, NOTHING, [cooled(1)]),
        (11, NOTHING, [cooled(1), *BY_SECOND]),
        (10, Observed(retry_after=0.0), []),
        (10, Observed(retry_after=900.0), [cooled(60)]),
        (11, Observed(retry_after=3.0), [cooled(3), *BY_MINUTE]),
        (10, Observed((Reading("tokens", 600, 10, 59.0),)), [cooled(1)]),  # enough for this one, so it names nothing
        # "Limit 0": not for this account
        (10, Observed(refusal=replace(REACHED, limit=0, used=0, wait=None)), [cooled(1), *BLIND]),
        (10, Observed(refusal=replace(REACHED, limit=0, used=0, wait=0.0)), BLIND),
        # too large for a limit: nobody's doing, but the limit is news
        (10, Observed(refusal=replace(REACHED, kind="too large", used=None, wait=None)), []),
        (
            10,
            Observed(refusal=replace(REACHED, kind="too large", limit=300, used=None, requested=400, wait=None)),
            [Change("retuned", "TPM", 600, 300)],
        ),
        # of another limit than we knew
        (
            10,
            Observed(refusal=replace(REACHED, limit=300, used=295, requested=10, wait=1.0)),
            [
                Change("retuned", "TPM", 600, 300),
                cooled(1),
                Change("drift", "TPM", 0, 295),
                Change("reserve", "TPM", 5, 120),
            ],
        ),
        (
            10,
            Observed(
                refusal=replace(REACHED, unit="requests", window=DAY, limit=200, used=200, requested=1, wait=432.0)
            ),
            [Change("added", "RPD", 0, 200), cooled(60, "RPD")],
        ),
        (10, Observed(refusal=replace(REACHED, unit="images", limit=5, used=5, requested=1, wait=12.0)), [cooled(12)]),
    ],
)
def test_what_a_refusal_teaches(sent: float, observed: Observed, changes: list[Change]) -> None:
    lane = Lane()
    lane.pressure().synced = True
    hold = lane.send(100, {"tokens": sent})
    seen = lane.refused(hold, observed, 100.0)
    if changes and changes[0].kind == "added":  # how much is kept back of a day's limit is not the point here
        seen = [change for change in seen if change.kind != "reserve"]
    assert seen == changes


def test_what_was_spent_before_we_came_is_nobodys_pressure() -> None:
    lane = Lane()
    assert lane.refused(lane.send(100), Observed(refusal=REACHED), 100.0) == [
        cooled(0.5),
        Change("drift", "TPM", 0, 595),
    ]
    assert lane.bucket.missing(100.0) == 10 + 595
    assert lane.pressure().synced


def test_a_server_that_lacks_just_what_we_believed_is_given_some_room() -> None:
    lane = Lane()
    lane.send(100, {"tokens": 590})
    hold = lane.send(102, {"tokens": 10})
    lane.bucket.full_at += 2.5
    *sent, missing, corrected = hold.marks
    hold.marks = (*sent, missing + 25, corrected)
    assert lane.refused(hold, Observed(refusal=REACHED), 102.0) == [cooled(0.5), Change("reserve", "TPM", 10, 34)]


def test_an_even_lane_leaves_less_densely_each_time_a_slice_was_overfull() -> None:
    lane = Lane()
    lane.refused(lane.send(100, {"tokens": 11}), NOTHING, 100.0)
    assert lane.pressure().even
    trace = []
    for left, heard in ((100.5, 102.0), (103.0, 103.5), (104.7, 105.0), (106.5, 107.0), (109.0, 110.0)):
        hold = Hold({"tokens": 1}, int(left * 10))  # those between have been let in
        hold.sent_at = left
        changes = lane.refused(hold, Observed(refusal=replace(REACHED, used=100, wait=0.0)), heard)
        trace.append((left, [(c.kind, round(c.after, 5)) for c in changes]))
    assert trace == [
        (100.5, []),  # part of the second before it left before we knew
        (103.0, [("share", round(1 / 1.1, 5))]),
        (104.7, [("share", round(1 / 1.3, 5))]),
        (106.5, [("share", 0.5)]),
        (109.0, [("share", 0.25)]),
    ]


def test_an_even_lane_doubts_after_a_long_calm_whether_it_need_be_even() -> None:
    lane = Lane()
    trace = []
    for at in (100, 1_000, 1_900, 2_000, 5_590, 5_610):
        hold = lane.send(at, {"tokens": 11})
        if at in {100, 2_000}:
            lane.refused(hold, NOTHING, at)
        changes = lane.feedback.observe(hold, NOTHING, at)
        trace.append((at, lane.pressure().even, [(c.kind, c.after) for c in changes]))
    freed = [("burst", 600), ("share", 1)]
    assert trace == [
        (100, True, []),
        (1_000, True, []),
        (1_900, False, freed),
        (2_000, True, []),
        (5_590, True, []),  # twice as long this time
        (5_610, False, freed),
    ]


def test_an_even_lane_learns_nothing_from_levels() -> None:
    lane = Lane()
    lane.refused(lane.send(100, {"tokens": 11}), NOTHING, 100.0)
    assert lane.reply(102, 400) == []
    assert lane.bucket.corrected == 0


def test_one_reaction_per_wave() -> None:
    lane = Lane()
    lane.pressure().synced = True
    wave = [lane.send(100 + n / 10) for n in range(5)]
    seen = [len(lane.refused(hold, Observed(refusal=REACHED), 102.0 + n)) for n, hold in enumerate(wave)]
    assert seen == [3, 0, 0, 0, 0]
    assert lane.bucket.closed_until == 102.5
    hold = lane.quota.reserve(ONE, 200.0)
    assert isinstance(hold, Hold)
    lane.quota.sent(hold, 200.0)
    assert len(lane.refused(hold, Observed(refusal=REACHED), 200.0)) == 2  # cooled and drift; the reserve is at its cap
    never_sent = lane.quota.reserve({"tokens": 0}, 201.0)
    assert isinstance(never_sent, Hold)
    assert [c.kind for c in lane.refused(never_sent, NOTHING, 201.0)] == ["cooled"]


def test_a_refusal_closes_what_it_names_and_everything_if_it_names_nothing() -> None:
    lane = Lane(TPM, RPM)
    hold = lane.send(100)
    lane.refused(hold, Observed(refusal=REACHED), 100.0)
    assert [bucket.closed_until for bucket in lane.quota.buckets] == [100.5, 100]
    later = lane.send(161, {"requests": 1})
    lane.refused(later, Observed(retry_after=4.0), 161.0)
    assert [bucket.closed_until for bucket in lane.quota.buckets] == [165, 165]
    assert lane.refused(lane.send(165, {"requests": 1}), Observed(retry_after=0.0), 165.0) == []


def test_headers_name_the_limit_that_lacks_what_was_asked() -> None:
    lane = Lane(TPM, RPM)
    said = Observed((*linear(300).readings, *linear(120, RPM).readings), retry_after=2.0)
    assert lane.refused(lane.send(100), said, 100.0)[0] == cooled(2, "RPM")
    assert [bucket.closed_until for bucket in lane.quota.buckets] == [100, 102]


def test_a_cooldown_is_never_shortened() -> None:
    lane = Lane(TPM, RPM)
    lane.feedback.cool(130.0)
    lane.feedback.cool(120.0)
    assert [bucket.closed_until for bucket in lane.quota.buckets] == [130, 130]
    hold = Hold(ONE, 99)
    assert lane.refused(hold, Observed(retry_after=20.0), 105.0) == []
    assert lane.refused(hold, Observed(retry_after=26.0), 105.0) == [cooled(26), cooled(26, "RPM")]


@pytest.mark.parametrize(
    ("limits", "limit", "name"),
    [
        ((replace(TPM, amount=300), replace(TPM, scope="project")), 600, "project TPM"),
        ((TPM, replace(TPM, amount=300, scope="project")), 600, "TPM"),
        ((replace(TPM, amount=100, own=True),), 600, "TPM"),
    ],
)
def test_a_message_changes_no_limit_that_it_may_not_mean(limits: tuple[Limit, ...], limit: float, name: str) -> None:
    lane = Lane(*limits)
    changes = lane.refused(lane.send(100), Observed(refusal=replace(REACHED, limit=limit)), 100.0)
    assert changes[0] == cooled(0.5, name)
    assert [bucket.limit for bucket in lane.quota.buckets] == list(limits)


def test_a_message_that_fits_none_of_several_limits_means_them_all() -> None:
    lane = Lane(TPM, replace(TPM, scope="project"))
    changes = lane.refused(lane.send(100), Observed(refusal=replace(REACHED, limit=500, used=495)), 100.0)
    assert [change.limit for change in changes if change.kind == "cooled"] == ["TPM", "project TPM"]


def test_a_day_is_never_left_evenly() -> None:
    lane = Lane(Limit("requests", 86_400, DAY))
    lane.pressure().synced = True
    for _ in range(20):
        hold = lane.send(100, {"requests": 100})
    changes = lane.refused(hold, Observed(retry_after=1.0), 100.0)
    assert changes == [cooled(1, "RPD")]


def test_a_whole_window_sent_explains_a_refusal_as_well_as_a_second() -> None:
    lane = Lane()
    for step in range(58):
        lane.send(100 + 1.05 * step)
    hold = lane.send(161.0)
    assert lane.refused(hold, NOTHING, 161.0) == [cooled(1), *BY_MINUTE]
    sparse = Lane()
    for step in range(57):
        sparse.send(100 + 1.05 * step)
    assert sparse.refused(sparse.send(161.0), NOTHING, 161.0) == [cooled(1)]


def test_drift_is_applied_and_told() -> None:
    lane = Lane()
    assert lane.reply(100, 10) == []
    assert lane.reply(103, 25) == [Change("drift", "TPM", 0, 15)]
    assert lane.bucket.missing(103.0) == 25
    (back,) = lane.reply(105, 10)
    assert back.kind == "drift"
    assert back.after == pytest.approx(-5)


def test_readings_about_windows_and_of_no_known_limit_move_nothing() -> None:
    lane = Lane()
    lane.reply(100, 10)
    windowed = Observed((Reading("tokens", 600, 500, 3.0), Reading("requests", 9, None, None)))
    assert lane.feedback.observe(lane.send(102), windowed, 102.0) == []
    silent = Observed((Reading("tokens", 600, None, None),))
    assert lane.feedback.observe(lane.send(102), silent, 102.0) == []
    assert lane.bucket.corrected == 0


def test_the_first_reading_counts_even_if_its_arithmetic_is_odd() -> None:
    lane = Lane()
    said = Observed((Reading("tokens", 600, 500, 3.0),))
    assert lane.feedback.observe(lane.send(100), said, 100.0) == [Change("drift", "TPM", 0, 90)]


def test_a_limit_that_this_very_request_would_not_have_fitted_into_is_not_believed() -> None:
    lane = Lane()
    below = Observed((Reading("tokens", 9, 0, None),))
    assert lane.feedback.observe(lane.send(100), below, 100.0) == []
    assert "retuned" not in {change.kind for change in lane.refused(lane.send(100), below, 100.0)}
    assert lane.quota.buckets[0].limit == TPM
    same = Observed((Reading("tokens", 10, None, None),))
    assert Lane().feedback.observe(lane.send(110), same, 110.0) == [Change("retuned", "TPM", 600, 10)]


def test_a_limit_met_on_the_way_has_its_own_pressure() -> None:
    lane = Lane()
    said = Observed((Reading("requests", 500, 499, 0.12),))
    assert lane.feedback.observe(lane.send(100), said, 100.0) == []
    assert lane.feedback.observe(lane.send(101), said, 101.0) == [Change("added", "RPM", 0, 500)]
    (_, rpm) = lane.quota.buckets
    assert lane.pressure(rpm).bucket is rpm


class Rival:
    """Somebody who takes so many a second of a bucket that brings ten; a look every five seconds."""

    def __init__(self) -> None:
        self.quota = Quota([TPM], 0.0, slack=1)
        (self.bucket,) = self.quota.buckets
        self.pressure = Pressure(self.bucket, 0.0)
        self.pressure.heard = True
        self.pressure.drifted(100, 0.0)  # what was spent before we came, which is no sign of anybody
        self.now = 0.0

    def takes(self, a_second: float, looks: int) -> list[tuple[float, float]]:
        trace = []
        for _ in range(looks):
            unseen = (a_second - (1 - self.bucket.share) * 10) * 5
            self.pressure.drifted(unseen, self.now + 4)
            self.now += 5
            self.pressure.look(self.quota, self.now)
            trace.append((round(self.bucket.share, 3), round(self.bucket.reserve, 3)))
        return trace


def test_the_share_falls_to_what_a_rival_leaves_and_creeps_back() -> None:
    rival = Rival()
    falls = [1, 0.967, 0.967, 0.933, 0.933, 0.9, 0.9, 0.867, 0.867, 0.833, 0.833, 0.8, 0.8, 0.8, 0.8, 0.8]
    assert rival.takes(2, 16) == [(share, 10) for share in falls]
    rises = [0.8, 0.833, 0.833, 0.867, 0.867, 0.9, 0.9, 0.933, 0.933, 0.967, 0.967, 1, 1]
    assert rival.takes(0, 13) == [(share, 10) for share in rises]


def test_a_rival_who_takes_everything_leaves_a_fiftieth_and_the_way_back_is_slow() -> None:
    rival = Rival()
    trace = rival.takes(10, 16)
    assert trace[:2] == [(0.917, 50), (0.833, 50)]  # fifty were taken unseen between two looks
    assert trace[-4:] == [(0.02, 50)] * 4
    back = rival.takes(0, 21)
    assert [share for share, _ in back] == [round(0.02 + 0.05 * n, 3) for n in range(1, 20)] + [1, 1]


def test_what_was_kept_back_for_a_rival_is_halved_every_two_calm_minutes() -> None:
    rival = Rival()
    rival.takes(10, 16)
    rival.takes(0, 20)
    reserves = [reserve for _, reserve in rival.takes(0, 100)]
    falls = [5 * n for n in range(1, 100) if reserves[n] < reserves[n - 1]]
    assert [reserves[0], *(reserves[at // 5] for at in falls)] == [50, 25, 12.5, 10]
    assert [falls[1] - falls[0], falls[2] - falls[1]] == [120, 120]


def test_alone_nothing_ever_changes() -> None:
    rival = Rival()
    assert rival.takes(0, 200) == [(1, 10)] * 200


def test_the_last_small_step_back_is_taken_too() -> None:
    rival = Rival()
    rival.bucket.retune(0.0, share=0.98)
    rival.pressure.drifted(-1, 4.0)  # what was left to somebody in five seconds
    assert rival.pressure.look(rival.quota, 5.0) == [Change("share", "TPM", 0.98, 1)]


def test_looks_are_five_seconds_apart() -> None:
    rival = Rival()
    rival.pressure.drifted(300, 1.0)
    assert rival.pressure.look(rival.quota, 4.999) == []
    assert rival.pressure.look(rival.quota, 5.0) == [
        Change("share", "TPM", 1, 0.5),
        Change("reserve", "TPM", 10, 240),  # four tenths of the limit at the most
    ]
    assert rival.pressure.look(rival.quota, 6.0) == []
    rival.pressure.drifted(-25, 9.0)
    assert rival.pressure.look(rival.quota, 10.0) == []  # and nothing is said of what stays as it is


def test_drift_back_and_forth_is_nobody() -> None:
    rival = Rival()
    for amount in (30, -30, 20, -20):
        rival.pressure.drifted(amount, 1.0)
    rival.pressure.drifted(0, 1.0)
    assert rival.pressure.look(rival.quota, 5.0) == []
    rival.pressure.drifted(-600, 6.0)
    assert rival.pressure.look(rival.quota, 10.0) == []
    assert rival.bucket.share == 1


@pytest.mark.parametrize(
    ("reserve", "unseen", "kept"),
    [(10, 0, 34), (10, 50, 60), (100, 0, 150), (200, 0, 240), (240, 500, 240), (300, 0, 300)],
)
def test_a_hit_keeps_back_more_up_to_a_part_of_the_limit(reserve: float, unseen: float, kept: float) -> None:
    rival = Rival()
    rival.bucket.retune(0.0, reserve=reserve)
    changes = rival.pressure.hit(unseen, 0.0, blind=False)
    assert rival.bucket.reserve == kept
    assert changes == ([] if kept == reserve else [Change("reserve", "TPM", reserve, kept)])
    assert rival.bucket.share == 1


def test_blind_hits_feel_the_way_down_and_time_feels_it_up() -> None:
    rival = Rival()
    shares = []
    for now in range(1, 60):
        rival.pressure.hit(0, float(now), blind=True)
        shares.append(rival.bucket.share)
    assert shares[:3] == [0.9, pytest.approx(0.81), pytest.approx(0.729)]
    assert shares[-1] == 0.02
    rival.pressure.look(rival.quota, 60.0)
    assert rival.bucket.share <= 0.07


def test_flattening_forgets_whom_it_suspected() -> None:
    rival = Rival()
    rival.pressure.drifted(300, 1.0)
    assert rival.pressure.flatten(60.0, 2.0) == BY_MINUTE
    assert rival.pressure.even
    rival.pressure._peak = 0
    assert rival.pressure.look(rival.quota, 7.0) == []
    assert rival.bucket.capacity == 0.2
    assert math.isinf(rival.pressure.cooled_at)


@pytest.mark.parametrize(
    ("used", "wait", "counts_windows"),
    [
        (3, 19.9, False),
        (3, 20.0, False),  # as long as the one asked for takes to come back, from a bucket that is empty
        (3, 20.1, True),
        (4, 40.0, False),  # one is owed
        (4, 40.1, True),
    ],
)
def test_no_bucket_keeps_anybody_longer_than_what_was_asked_for_takes_to_come_back(
    used: float, wait: float, counts_windows: bool
) -> None:
    lane = Lane(Limit("requests", 3, MINUTE))
    for at in (100, 101, 121):
        lane.send(at, {"requests": 1})
    refusal = Refusal("reached", "requests", MINUTE, 3, used, 1, wait, "m")
    lane.refused(lane.send(141, {"requests": 1}), Observed(refusal=refusal), 141.0)
    assert lane.pressure().even is counts_windows
