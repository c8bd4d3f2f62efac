"""What every store does with one question after another, whatever it keeps its lanes in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from sharing import Hands

from ratelimit.admission.shared.store import NO_BURST, Answer, Ask, LimitTold, Store

pytestmark = pytest.mark.real_time


def told(amount: float = 600, window: float = 60, unit: str = "requests", **more: Any) -> LimitTold:
    """A limit of ten a second, of which a second's worth is kept back."""
    reserve = amount / window
    return LimitTold(unit, window, "", amount, 1, reserve, NO_BURST, 1, **more)


@dataclass
class Client:
    """A program that asks for requests, and remembers what the protocol wants it to."""

    store: Store
    name: str
    weight: float = 1
    limits: list[LimitTold] = field(default_factory=lambda: [told()])
    group: str = "g"
    number: int = 0
    has: float = 0
    total: float = 0
    epoch: float = 0
    last: Ask = field(init=False)
    heard: float = 0

    async def ask(self, want: float, need: float = 1, **more: Any) -> Answer:
        self.number += 1
        fields: dict[str, Any] = {
            "lane": "m tier-1",
            "holder": self.name,
            "name": self.name,
            "number": self.number,
            "weight": self.weight,
            "lasts": 1e6,
            "at": 0,
            "jump": 0,
            "epoch": self.epoch,
            "answered": True,
            "priority": 0,
            "pace": 1000,
            "units": ["requests"],
            "need": [need],
            "want": [want],
            "has": [self.has],
            "keep": [self.has],
            "total": [self.total],
            "give": [0.0],
            "spent": [0.0],
            "limits": self.limits,
        }
        self.last = Ask(**{**fields, **more})
        return self.hear(await self.store.lease(self.group, self.last))

    def hear(self, answer: Answer) -> Answer:
        if not answer.late:
            self.total += max(answer.granted[0] - self.last.has[0], 0)
            self.has, self.epoch, self.heard = answer.granted[0], answer.epoch, answer.now
            self.limits = [LimitTold(**kept.known, basis=kept.corrected) for kept in answer.limits]
        return answer

    def send(self, amount: float) -> None:
        self.has -= amount


def missing(answer: Answer) -> float:
    (limit,) = answer.limits
    return limit.missing / 1e6 * limit.amount / limit.window


async def test_one_alone_gets_what_is_there_and_then_what_comes_back(store: Store, hands: Hands) -> None:
    one = Client(store, "one")
    assert (await one.ask(1000)).granted == [590]
    one.send(590)
    refused = await one.ask(1000)
    assert (refused.granted, refused.hint) == ([0], 100_000)
    hands.pass_by(0.1)
    assert (await one.ask(1000)).granted == [1]


async def test_a_question_that_is_repeated_is_taken_in_once(store: Store, hands: Hands) -> None:
    one = Client(store, "one")
    first = await one.ask(100)
    again = await store.lease("g", one.last)
    assert (again.granted, missing(again)) == (first.granted, missing(first)) == ([100], 100)


async def test_an_older_question_that_comes_late_changes_nothing(store: Store, hands: Hands) -> None:
    one = Client(store, "one")
    await one.ask(100)
    old = msgspec.structs.replace(one.last)
    await one.ask(200)
    assert missing(await store.lease("g", old)) == 200


async def test_weights_part_what_there_is(store: Store, hands: Hands) -> None:
    heavy, light = Client(store, "heavy", weight=3), Client(store, "light")
    got = {"heavy": 0.0, "light": 0.0}
    for number in range(640):
        for one in (heavy, light, light, light):  # who asks more often gets no more
            before = one.has
            granted = (await one.ask(100)).granted[0] - before
            if number >= 240:  # what was saved up is gone, and was enough for both
                got[one.name] += granted
            one.send(one.has)
        hands.pass_by(0.25)
    assert got["heavy"] / got["light"] == pytest.approx(3, rel=0.02)
    assert sum(got.values()) == pytest.approx(1000, abs=5)


async def test_the_more_urgent_goes_first(store: Store, hands: Hands) -> None:
    batch, urgent = Client(store, "batch"), Client(store, "urgent")
    await batch.ask(1000)
    batch.send(590)
    assert (await urgent.ask(5, priority=-1)).granted == [0]
    hands.pass_by(0.5)
    waits = await batch.ask(1000)
    assert (waits.granted, waits.hint) == ([0], 100_000)
    assert (await urgent.ask(5, priority=-1)).granted == [5]


async def test_the_whole_limit_waits_until_it_is_there_and_passed_by_nobody(store: Store, hands: Hands) -> None:
    whale, small = Client(store, "whale"), Client(store, "small")
    await small.ask(590)
    small.send(590)
    assert (await whale.ask(600, need=600)).granted == [0]
    for _ in range(58):
        hands.pass_by(0.9)
        got = await small.ask(1)
        small.send(got.granted[0])
        assert (await whale.ask(600, need=600)).granted == [0]
    for _ in range(16):
        hands.pass_by(0.9)
        await small.ask(1)
        if (await whale.ask(600, need=600)).granted == [600]:
            break
    assert whale.has == 600


async def test_what_is_handed_back_is_there_for_others(store: Store, hands: Hands) -> None:
    one, two = Client(store, "one"), Client(store, "two")
    await one.ask(590)
    assert (await two.ask(10)).granted == [0]
    await one.ask(0, need=0, keep=[0.0])
    assert (await two.ask(10)).granted == [10]


async def test_what_a_dead_program_held_counts_as_sent_and_its_part_is_free(store: Store, hands: Hands) -> None:
    dead, alive = Client(store, "dead"), Client(store, "alive")
    await dead.ask(590)
    assert (await alive.ask(1000)).programs == 2
    hands.pass_by(1.1)
    answer = await alive.ask(1000)
    assert (answer.programs, answer.part, answer.granted) == (1, 1, [11])


async def test_a_bucket_has_no_more_room_than_is_not_held(store: Store, hands: Hands) -> None:
    idle, other = Client(store, "idle"), Client(store, "other")
    await idle.ask(400, lasts=3600e6)
    hands.pass_by(1800)  # it would be full again
    assert (await other.ask(1000)).granted == [190]


async def test_a_clock_that_jumps_ahead_fills_nothing(store: Store, hands: Hands) -> None:
    one, two = Client(store, "one"), Client(store, "two")
    await one.ask(590)
    one.send(590)
    await two.ask(0, need=0)
    hands.pass_by(3600.1)
    at = one.heard + 100_000
    late = await one.ask(100, at=at)
    assert (late.late, late.now - at) == (True, 3600e6)
    one.number -= 1
    assert (await one.ask(100, at=at, jump=late.now - at)).granted == [1]
    assert (await two.ask(1, at=two.heard + 100_000, jump=3600e6)).programs == 2
    assert two.has == 0


async def test_a_clock_that_jumps_back_holds_up_nobody(store: Store, hands: Hands) -> None:
    one = Client(store, "one")
    await one.ask(590)
    one.send(590)
    hands.pass_by(-3600)
    assert (await one.ask(100)).hint <= 100_000
    hands.pass_by(0.1)
    assert (await one.ask(100)).granted == [1]


async def test_a_question_that_was_held_up_on_the_way_is_left_alone(store: Store, hands: Hands) -> None:
    one = Client(store, "one")
    await one.ask(10)
    hands.pass_by(0.8)
    assert (await one.ask(500, at=one.heard)).late
    assert missing(await Client(store, "two").ask(0, need=0)) == 10  # all that is held


async def test_a_store_that_lost_its_memory_starts_with_what_a_program_knows(store: Store, hands: Hands) -> None:
    one = Client(store, "one")
    one.limits = [told(missing=580)]
    one.epoch = 1
    answer = await one.ask(100)
    assert answer.granted == [10]


async def test_a_lane_nobody_has_an_answer_from_lets_scouts_go_and_no_more(store: Store, hands: Hands) -> None:
    one, two = Client(store, "one"), Client(store, "two")
    assert (await one.ask(100, answered=False)).granted == [1]
    assert (await two.ask(100, answered=False)).granted == [0]
    hands.pass_by(0.2)
    assert (await two.ask(100, answered=False)).granted == [1]
    assert (await one.ask(100)).granted[0] > 1


async def test_drift_that_two_have_seen_counts_once(store: Store, hands: Hands) -> None:
    one, two = Client(store, "one"), Client(store, "two")
    await one.ask(0, need=0)
    await two.ask(0, need=0)
    one.limits[0].shift = two.limits[0].shift = 50
    await one.ask(0, need=0)
    answer = await two.ask(0, need=0)
    assert (missing(answer), answer.limits[0].corrected) == (50, 50)
    two.limits[0].shift = 8
    assert missing(await two.ask(0, need=0)) == 58


async def test_what_was_sent_without_a_store_is_taken_less_what_others_saw_of_it(store: Store, hands: Hands) -> None:
    one, two = Client(store, "one"), Client(store, "two")
    await one.ask(0, need=0)
    await two.ask(0, need=0)
    one.limits[0].shift = 30
    await one.ask(0, need=0)
    answer = await two.ask(0, need=0, spent=[50.0])
    assert (missing(answer), answer.limits[0].ours) == (50, 30)
    assert (await one.ask(0, need=0)).limits[0].ours == 30


async def test_a_lease_that_the_store_forgot_is_taken_again(store: Store, hands: Hands) -> None:
    one = Client(store, "one")
    await one.ask(100)
    one.total += 40  # of a lease that a replica has not heard of
    assert missing(await one.ask(100)) == 140


async def test_what_one_has_learnt_the_others_hear(store: Store, hands: Hands) -> None:
    one, two = Client(store, "one"), Client(store, "two")
    await one.ask(0, need=0)
    await two.ask(0, need=0)
    (learnt,) = one.limits
    learnt.amount, learnt.share, learnt.proven, learnt.changed, learnt.closed = 300, 0.5, True, True, 5e6
    await one.ask(0, need=0, facts=[("charge", "exact")])
    answer = await two.ask(10)
    (limit,) = answer.limits
    assert (limit.amount, limit.share, limit.proven, limit.closed, answer.facts) == (
        300,
        0.5,
        True,
        5e6,
        [("charge", "exact")],
    )
    assert (answer.granted, answer.hint) == ([0], 5e6)
    # What comes from one who had not heard of that yet does not undo it.
    stale = told(proven=True, version=1, changed=True)
    assert (await two.ask(0, need=0, limits=[stale])).limits[0].amount == 300


async def test_the_stricter_of_two_tables_counts_until_the_service_has_told(store: Store, hands: Hands) -> None:
    await Client(store, "one").ask(0, need=0)
    strict = Client(store, "two", limits=[told(300)])
    assert (await strict.ask(0, need=0)).limits[0].amount == 300
    loose = Client(store, "three", limits=[told(900)])
    assert (await loose.ask(0, need=0)).limits[0].amount == 300
    proven = Client(store, "four", group="other", limits=[told(300, proven=True)])
    await proven.ask(0, need=0)
    stricter = Client(store, "five", group="other", limits=[told(100)])
    assert (await stricter.ask(0, need=0)).limits[0].amount == 300


async def test_a_table_counts_no_longer_than_somebody_is_there_who_has_it(store: Store, hands: Hands) -> None:
    wrong = Client(store, "wrong", limits=[told(300), told(200, 86_400)])
    await wrong.ask(250)
    other = Client(store, "other", limits=[told(900)])
    assert sorted(limit.amount for limit in (await other.ask(0, need=0)).limits) == [200, 300]
    await other.ask(0, need=0, lasts=0)
    hands.pass_by(1.1)
    right = Client(store, "right", limits=[told(900)])
    (limit,) = (await right.ask(0, need=0)).limits
    assert (limit.amount, limit.window) == (900, 60)
    assert limit.missing > 0  # what was sent was sent
    back = Client(store, "back", limits=[told(300)])
    assert [limit.amount for limit in (await back.ask(0, need=0)).limits] == [300]


async def test_who_leaves_is_gone_and_an_onlooker_sees_who_is_there(store: Store, hands: Hands) -> None:
    one, two = Client(store, "one", weight=2), Client(store, "two")
    await one.ask(100)
    await two.ask(1000)
    (lane,) = await store.peek()
    assert (lane.lane, [(h.name, h.weight, h.holds) for h in lane.holders]) == (
        "m tier-1",
        [("one", 2, [100]), ("two", 1, [490])],
    )
    await one.ask(0, need=0, lasts=0, keep=[0.0])
    (lane,) = await store.peek()
    assert [holder.name for holder in lane.holders] == ["two"]
