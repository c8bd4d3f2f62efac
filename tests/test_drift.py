"""What a reply proves about our own bucket: by hand, row by row, and against a service that is a little late."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import F, TextbookServer, fractions

from ratelimit.errors import NeverFits
from ratelimit.limits.bucket import DAY, MINUTE, Bucket, Limit
from ratelimit.limits.drift import Change, charged, match, missing, proves, refused_missing, way_of
from ratelimit.limits.headers import NOTHING, Observed, Reading
from ratelimit.limits.quota import UNSENT, Hold, Quota
from ratelimit.limits.refusals import Refusal

SLACK = F(1)
SIXTY = Limit("tokens", F(60), F(60))  # one a second


class Scene:
    """One limit of which one comes back a second, and the requests that were sent against it."""

    def __init__(self) -> None:
        self.quota = Quota([SIXTY], F(0), slack=SLACK)
        (self.bucket,) = self.quota.buckets

    def send(self, at: float, tokens: float) -> Hold:
        hold = self.quota.reserve({"requests": F(1), "tokens": F(tokens)}, F(at))
        assert isinstance(hold, Hold)
        self.quota.sent(hold, F(at))
        return hold

    def reply(self, hold: Hold, theirs: float, now: float, *, way: float = math.inf, refused: bool = False) -> float:
        wrong = proves(self.quota, hold, self.bucket, F(theirs), F(now), way=way, refused=refused)
        self.bucket.shift(wrong, F(now))
        return wrong


@pytest.mark.parametrize(("theirs", "wrong"), [(10, 0), (4, -6), (0, -8), (25, 15), (70, 60)])
def test_alone_the_server_is_right(theirs: int, wrong: int) -> None:
    scene = Scene()
    hold = scene.send(0, 10)
    assert scene.reply(hold, theirs, 2) == wrong  # two seconds later 8 are still missing, and no more can come back
    assert scene.bucket.missing(F(2)) == 8 + wrong


def test_what_is_in_flight_is_not_counted_twice() -> None:
    scene = Scene()
    first, second, third = scene.send(0, 10), scene.send(5, 20), scene.send(10, 3)
    assert [scene.reply(first, 10, 12), scene.reply(second, 25, 12), scene.reply(third, 23, 12)] == [0, 0, 0]


def test_an_older_reply_is_superseded() -> None:
    scene = Scene()
    first, second = scene.send(0, 10), scene.send(5, 20)
    assert scene.reply(second, 25, 6) == 0
    assert scene.reply(first, 50, 7) == 0
    assert scene.reply(first, 0, 7) == 0
    assert scene.reply(second, 26, 7) == 1  # the newest may speak again


def test_what_has_been_corrected_since_is_not_corrected_again() -> None:
    scene = Scene()
    first, second, third = scene.send(0, 10), scene.send(5, 20), scene.send(10, 5)
    assert scene.reply(first, 16, 12) == 6
    assert scene.reply(second, 31, 13) == 0
    assert scene.reply(third, 29, 13) == -2  # 25 + 6 less the server's 29
    assert scene.reply(scene.send(20, 1), 20, 21) == 0


def test_what_settling_has_changed_since_is_not_corrected_again() -> None:
    scene = Scene()
    first, second, third = scene.send(0, 10), scene.send(5, 20), scene.send(7, 9)
    scene.quota.settle(first, {"requests": 1, "tokens": 4}, F(8))
    scene.quota.settle(third, UNSENT, F(8))  # sent after the second: no part of how the bucket stood then
    assert scene.reply(second, 19, 9) == 0


@pytest.mark.parametrize(
    ("pause", "theirs", "wrong"),
    [
        (F(1, 2), F(59, 2), 0),
        (F(1, 2), 20, 0),  # the first has not arrived yet
        (F(1, 2), 19, F(-1, 2)),  # 19 + 10 is less than 29.5
        (F(1, 2), F(61, 2), 1),
        (2, 28, 0),
        (2, 27, -1),  # two seconds before: has arrived for sure
        (2, 20, -8),
    ],
)
def test_what_was_sent_shortly_before_may_not_have_been_counted(pause: float, theirs: float, wrong: float) -> None:
    scene = Scene()
    scene.send(0, 10)
    assert scene.reply(scene.send(pause, 20), theirs, pause) == wrong


@pytest.mark.parametrize(
    ("pause", "theirs", "wrong"),
    [
        (F(1, 2), 10, 0),
        (F(1, 2), 30, 0),  # the second has overtaken it
        (F(1, 2), 31, 1),
        (F(1, 2), 9, -1),
        (2, 30, 20),  # two seconds after: cannot have
        (2, 11, 1),
    ],
)
def test_what_was_sent_shortly_after_may_have_been_counted(pause: float, theirs: float, wrong: float) -> None:
    scene = Scene()
    hold = scene.send(0, 10)
    scene.send(pause, 20)
    assert scene.reply(hold, theirs, 3) == wrong


@pytest.mark.parametrize(("theirs", "wrong"), [(5, 0), (12, 7), (1, -4)])
def test_a_server_that_refused_has_not_taken_it(theirs: int, wrong: int) -> None:
    scene = Scene()
    scene.send(0, 10)
    assert scene.reply(scene.send(5, 20), theirs, 6, refused=True) == wrong


def test_what_was_sent_a_moment_before_is_not_taken_for_what_was_sent_after() -> None:
    scene = Scene()
    scene.send(0, 10)
    scene.send(F("0.01"), 10)
    last = scene.send(F("0.02"), 10)
    assert scene.reply(last, 45, F("0.03")) == 45 - (30 - F("0.02"))
    scene.send(F("0.04"), 5)  # it may have been counted, and the others of its moment not for that
    assert scene.reply(last, 60, F("0.05")) == 60 - 45 - 5


def test_what_has_refilled_since_is_not_given_back_again() -> None:
    scene = Scene()
    first = scene.send(0, 50)  # charged nothing, as will turn out
    second = scene.send(40, 30)  # found 10 missing here, and none there
    third = scene.send(45, 4)
    assert scene.reply(first, 0, 46) == -10
    assert scene.bucket.missing(F(46)) == 30 + 4 - 6
    assert scene.reply(second, 30, 47) == 0
    assert scene.reply(third, 29, 47) == 0
    late = scene.send(50, 20)
    assert scene.bucket.missing(F(50)) == 44
    assert scene.reply(late, 14, 80) == -14  # thirty too many, of which sixteen have refilled


@pytest.mark.parametrize(("way", "wrong"), [(F(1, 4), 6), (F(3, 4), 1), (2, 1)])
def test_what_left_after_a_request_had_arrived_was_not_counted_for_it(way: float, wrong: float) -> None:
    scene = Scene()
    first = scene.send(0, 10)
    scene.send(F(1, 2), 5)
    assert scene.reply(first, 16, 1, way=way) == wrong


@pytest.mark.parametrize(("way", "wrong"), [(0, -6), (F(1, 5), -6), (F(1, 2), F(-57, 10)), (5, F(-52, 10))])
def test_where_less_than_the_slack_is_kept_back_a_long_way_proves_less(way: float, wrong: float) -> None:
    # What came back while the request was on the way, beyond the fifth that is kept back, may be all there is to it.
    scene = Scene()
    hold = scene.send(0, 10)
    scene.quota.ease(scene.bucket, F(1, 5), F(0))
    assert scene.reply(hold, 4, 1, way=way) == wrong


def test_how_long_a_request_was_on_its_way_at_most() -> None:
    scene = Scene()
    hold = scene.send(1, 10)
    assert way_of(scene.quota, hold, Observed(worked=0.5), 2.0) == 0.5
    assert way_of(scene.quota, hold, Observed(worked=9.0), 2.0) == 0
    scene.quota.alone = False  # what others send is not known here
    assert way_of(scene.quota, hold, Observed(), 2.0) == math.inf
    scene.quota.alone = True
    assert way_of(scene.quota, Hold({}, 7), Observed(), 2.0) == math.inf


def test_who_was_never_sent_or_never_marked_proves_nothing() -> None:
    scene = Scene()
    unsent = scene.quota.reserve({"tokens": 1}, F(0))
    assert isinstance(unsent, Hold)
    assert proves(scene.quota, unsent, scene.bucket, 50, F(0)) == 0
    hold = scene.send(0, 10)
    late = scene.quota.add(Limit("requests", 5, 60), F(0))
    assert proves(scene.quota, hold, late, 50, F(0)) == 0
    assert scene.quota.heard == {}


@dataclass(frozen=True)
class Ask:
    pause: float
    estimate: float
    charge: float
    out: float
    back: float


LEAST_DELAY = F(1, 4)
parts = fractions(0, 1, max_denominator=4)
asks = st.builds(
    lambda pause, estimate, part, out, back: Ask(pause, estimate, estimate * part, LEAST_DELAY + out, back),
    st.one_of(st.just(F(0)), parts, fractions(0, 80, max_denominator=2)),
    st.one_of(fractions(F(1, 2), 3, max_denominator=2), fractions(1, 59, max_denominator=2)),
    st.one_of(st.just(F(1)), st.just(F(0)), parts),
    fractions(0, F(7, 8), max_denominator=8),
    st.one_of(st.just(F(0)), fractions(0, 60, max_denominator=2)),
)


def everything_counted(sent: list[tuple[float, float]]) -> float:
    """When a server is full again that admits all of this, by (arrival, charge)."""
    full_at = F(0)
    for at, charge in sorted(sent):
        full_at = max(full_at, at) + charge
    return full_at


@settings(max_examples=150, deadline=None)
@given(st.lists(asks, min_size=1, max_size=14))
def test_a_server_that_is_a_little_late_never_refuses_and_moves_nothing_wrongly(asks: list[Ask]) -> None:
    scene, server = Scene(), TextbookServer(F(60), F(60))
    events: list[tuple[float, int, str, Hold | None, float]] = []
    sent: list[tuple[float, float]] = []

    def happen(until: float) -> None:
        while events and events[0][0] <= until:
            at, number, what, hold, theirs = heappop(events)
            if what == "arrives":
                after = server.arrives(asks[number].charge, at)
                assert after is not None, "refused"
                heappush(events, (at + asks[number].back, number, "replies", hold, after))
            else:
                assert hold is not None
                assert scene.reply(hold, theirs, at) <= SLACK  # emptier than we thought by no more than the delays
                scene.quota.settle(hold, hold.cost, at)
                # Never fuller than the server will be, once everything has arrived as late as it may.
                assert max(scene.bucket.full_at, at) + LEAST_DELAY + SLACK >= everything_counted(sent)

    now = F(0)
    for number, ask in enumerate(asks):
        now += ask.pause
        happen(now)
        while not isinstance(answer := scene.quota.reserve({"tokens": ask.estimate}, now), Hold):
            now = min(F(answer), events[0][0]) if events else F(answer)
            happen(now)
        scene.quota.sent(answer, now)
        sent.append((now + ask.out, ask.charge))
        heappush(events, (now + ask.out, number, "arrives", answer, F(0)))
    happen(now + 1000)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            fractions(2, 9, max_denominator=2),
            fractions(1, 4, max_denominator=2),
            fractions(0, 4, max_denominator=2),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_somebody_else_takes_is_known_after_the_next_reply(rows: list[tuple[float, float, float]]) -> None:
    scene, server, now = Scene(), TextbookServer(F(600), F(600)), F(0)
    for pause, ours, rivals in rows:
        now += pause
        if rivals:
            assert server.arrives(rivals, now) is not None
        hold = scene.send(now, ours)
        theirs = server.arrives(ours, now)
        assert theirs is not None
        scene.reply(hold, theirs, now + 1)
        assert scene.bucket.missing(now + 1) == server.missing(now + 1)


def reading(limit: float | None, remaining: float | None, reset: float | None, **other: object) -> Reading:
    return replace(Reading("tokens", limit, remaining, reset), **other)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("said", "missed"),
    [
        (reading(60, 50, 10.0), 10),
        (reading(60, 50, 9.5), 9.501),  # 9.5 missing shows as 50 remaining
        (reading(60, None, 9.5), 9.501),
        (reading(None, 50, None), 10),
        (reading(60, 50, 60.0), 10),  # a window that is over in a minute: its reset tells nothing of a level
        (reading(60, 70, None), 0),
        (reading(None, None, None), None),
        (reading(60, 60, 0.0), 0),
        (reading(60, None, 60.0), 60.001),
        (reading(60, None, 60.5), None),  # further away than the whole window
        (reading(60, 50, 2_678_400.0), 10),
    ],
)
def test_what_a_reading_says_is_missing(said: Reading, missed: float | None) -> None:
    assert missing(said, Limit("tokens", 60, 60)) == missed


def refusal(limit: float, used: float | None, requested: float, wait: float | None) -> Refusal:
    return Refusal("reached", "tokens", 60.0, limit, used, requested, wait, "m")


@pytest.mark.parametrize(
    ("observed", "said", "missed"),
    [
        (Observed(refusal=refusal(60, 55, 10, 5.25)), None, 55.25),
        (Observed(refusal=refusal(60, 0, 10, 0.0)), None, 50),
        (Observed(refusal=refusal(60, None, 70, 1.0)), None, 0),
        (Observed(refusal=refusal(60, 55, 10, 86_400.0)), None, 60),  # nothing is emptier than empty
        (Observed(refusal=refusal(60, 55, 10, None)), reading(60, 4, None), 56),
        (Observed(retry_after=5.0), reading(60, 4, None), 56),
        (Observed(retry_after=5.0), None, None),
        (NOTHING, None, None),
    ],
)
def test_what_a_refusal_says_is_missing(observed: Observed, said: Reading | None, missed: float | None) -> None:
    bucket = Bucket(Limit("tokens", 60, 60), 0.0)
    assert refused_missing(observed, said, bucket) == missed


RPM, RPD, TPM = Limit("requests", 500, MINUTE), Limit("requests", 10_000, DAY), Limit("tokens", 200_000, MINUTE)
OWN = Limit("requests", 100, MINUTE, own=True)


def requests(limit: float | None, remaining: float | None, reset: float | None, **other: object) -> Reading:
    return reading(limit, remaining, reset, unit="requests", **other)


@pytest.mark.parametrize(
    ("limits", "said", "name", "change"),
    [
        # told apart by amount
        ([RPM, RPD], requests(500, 499, 0.12), "RPM", None),
        ([RPM, RPD], requests(10_000, 9_999, 8.64), "RPD", None),
        ([RPM, RPD], requests(500, None, None), "RPM", None),
        # of the same amount: by the arithmetic, or by what the server calls its window, or not at all
        ([Limit("requests", 500, DAY), RPM], requests(500, 499, 0.12), "RPM", None),
        ([Limit("requests", 500, DAY), RPM], requests(500, None, None, window=60.0), "RPM", None),
        ([Limit("requests", 500, DAY), RPM], requests(500, None, None), None, None),
        # not known: changed
        ([RPM, RPD], requests(600, 599, 0.1), "RPM", ("retuned", "RPM", 500, 600)),
        ([RPM, RPD], requests(8_640, 8_639, 10.0), "RPD", ("retuned", "RPD", 10_000, 8_640)),
        ([TPM], reading(150e6, None, 0.0), "TPM", ("retuned", "TPM", 200_000, 150e6)),
        ([RPM, RPD], requests(600, None, None), None, None),
        # not known: another window
        ([RPM], requests(10_000, 9_999, 8.64), "RPD", ("added", "RPD", 0, 10_000)),
        ([], requests(500, 499, 0.12), "RPM", ("added", "RPM", 0, 500)),
        ([], requests(500, None, None), None, None),
        ([], reading(5, 4, 12.0, unit="input-images"), None, None),
        ([RPM], requests(500, 499, 17.28, window=86_400.0), "requests per day", None),
        # a project's limits are its own
        ([RPM], requests(500, 499, 0.12, scope="project"), "project RPM", ("added", "project RPM", 0, 500)),
        ([RPM, replace(RPM, scope="project")], requests(500, 499, 0.12, scope="project"), "project RPM", None),
        # the user's own is never raised, and stands beside what is published
        ([OWN], requests(500, 499, 0.12), None, None),
        ([OWN], requests(50, 49, 1.2), "RPM", ("retuned", "RPM", 100, 50)),
        ([OWN, RPM], requests(600, 599, 0.1), "RPM", ("retuned", "RPM", 500, 600)),
        ([OWN, replace(RPM, amount=100)], requests(100, 99, 0.6), "published", None),
        # no limit said
        ([RPM], requests(None, 499, None), "RPM", None),
        ([RPM, RPD], requests(None, 499, None), None, None),
        ([RPM], requests(0, 0, None), "RPM", None),
        ([RPM], requests(-1, 0, None), "RPM", None),
    ],
)
def test_which_limit_a_reading_speaks_of(
    limits: list[Limit], said: Reading, name: str | None, change: tuple[str, str, float, float] | None
) -> None:
    quota = Quota(limits, 0.0)
    before = [bucket.limit for bucket in quota.buckets]
    if name == "requests per day":
        name, change = "RPD", ("added", "RPD", 0, 500)
    if change and change[0] == "added":
        assert match(quota, said, 0.0) == (None, [])  # once is not enough
    bucket, changed = match(quota, said, 0.0)
    assert changed == ([] if change is None else [Change(*change)])  # type: ignore[arg-type]  # the kind is a literal
    if name is None:
        assert bucket is None
        assert [bucket.limit for bucket in quota.buckets] == before
        return
    assert bucket in quota.buckets
    assert bucket is not None
    if name == "published":
        assert not bucket.limit.own
    else:
        assert bucket.limit.name == name
    if change is None:
        assert [bucket.limit for bucket in quota.buckets] == before
    else:
        assert bucket.limit.amount == said.limit
        assert bucket.limit.own is (OWN in limits and len(limits) == 1)


@pytest.mark.parametrize(
    ("earlier", "later", "taken", "remaining", "charge"),
    [
        ([], [], 0, 40, 20),
        ([], [], 0, None, None),
        ([], [], 1, 40, None),  # the bucket was not full
        ([(-30, 0)], [], 0, 40, 20),
        ([(-30, 1)], [], 0, 40, None),  # another within the last minute
        ([(-70, 1)], [], 0, 40, 20),
        ([], [(0.5, 1)], 0, 40, None),  # another close behind
        ([], [(2, 1)], 0, 40, 20),
    ],
)
def test_what_was_charged_for_a_request_that_was_alone(
    earlier: list[tuple[float, int]],
    later: list[tuple[float, int]],
    taken: int,
    remaining: float | None,
    charge: float | None,
) -> None:
    scene = Scene()
    for at, tokens in earlier:
        scene.send(100 + at, tokens)
    if taken:
        scene.bucket.take(F(taken), F(100))
    hold = scene.send(100, 10)
    for at, tokens in later:
        scene.send(100 + at, tokens)
    assert charged(scene.quota, hold, scene.bucket, reading(60, remaining, None)) == charge


def test_who_left_after_a_request_had_arrived_does_not_matter_to_what_it_was_charged() -> None:
    scene = Scene()
    hold = scene.send(100, 10)
    scene.send(100.5, 1)
    shown = reading(60, 40, None)
    assert charged(scene.quota, hold, scene.bucket, shown, 0.4) == 20
    assert charged(scene.quota, hold, scene.bucket, shown, 0.6) is None


def test_what_was_charged_is_unknown_for_what_was_never_sent() -> None:
    scene = Scene()
    hold = scene.quota.reserve({"tokens": 1}, F(0))
    assert isinstance(hold, Hold)
    assert charged(scene.quota, hold, scene.bucket, reading(60, 59, None)) is None


def test_a_limit_heard_before_changes_when_two_replies_in_a_row_say_so() -> None:
    quota = Quota([RPM], 0.0)
    (bucket,) = quota.buckets
    quota.heard[bucket] = 1
    said = [match(quota, requests(limit, limit - 1, 60 / limit), 0.0) for limit in (600, 500, 600, 700, 700)]
    assert said == [
        (None, []),
        (bucket, []),
        (None, []),
        (None, []),
        (bucket, [Change("retuned", "RPM", 500, 700)]),
    ]


def test_the_first_word_on_a_limit_is_taken_back_where_it_is_not_repeated() -> None:
    quota = Quota([RPM, RPD], 0.0)
    bucket, _ = quota.buckets
    assert match(quota, requests(1, 0, 60.0), 0.0) == (bucket, [Change("retuned", "RPM", 500, 1)])
    quota.check({"requests": 400})  # nobody is told that it will never fit
    _, changes = match(quota, requests(10_000, 9_999, 8.64), 0.0)
    assert changes == [Change("retuned", "RPM", 1, 500)]
    for _ in range(2):
        match(quota, requests(300, 299, 0.2), 0.0)
    with pytest.raises(NeverFits):
        quota.check({"requests": 400})
    match(quota, requests(10_000, 9_999, 8.64), 0.0)
    assert bucket.limit.amount == 300
