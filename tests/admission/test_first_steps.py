"""How a lane opens: one request first, then at a pace; and how it takes up what an earlier process has left."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.headers import Observed

RPM, TPM = 600, 60_000
LIMITS = (Limit("requests", RPM, MINUTE), Limit("tokens", TPM, MINUTE))


@pytest.mark.parametrize("tokens", [1, 101])  # requests are what is limited, or tokens are
async def test_the_first_request_goes_alone_and_the_others_once_it_is_answered(tokens: float) -> None:
    assert await grants_of(20, reply=0.2, tokens=tokens) == [0.0, 0.2, 0.21]  # at ten times ten a second


@pytest.mark.parametrize("tokens", [1, 101])
async def test_the_others_wait_no_longer_than_a_refusal_takes_and_then_go_slowly(tokens: float) -> None:
    # One and a half times the sustained ten a second, until the first answer comes.
    assert await grants_of(20, reply=30.0, tokens=tokens) == [0.0, 0.25, 0.32]


async def test_who_goes_further_than_any_before_is_waited_for_no_longer_than_the_bucket_fills() -> None:
    # The first, and ten more in the second after it; the next has a second's worth and itself to be made up for. What
    # follows goes slowly until it is answered, and what is left then at an easy pace.
    grants = await all_grants_of(60, reply=5.0, first_reply=0.1)
    assert grants[:2] == [0.0, 0.1]
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(grants)]
    longest = max(pauses)
    crossing = pauses.index(longest)
    assert crossing == 10
    assert longest == pytest.approx(1.0, abs=0.11)  # as long as eleven take to come back, less the time they took to go
    slow = [pause for pause in pauses[crossing + 1 :] if pause > 0.05]
    assert slow
    assert set(slow) == {0.067}


@pytest.mark.parametrize(
    ("way", "waited", "then"),
    [
        (0.02, 0.25, {0.004}),  # a quarter of a second at least
        (0.2, 0.4, {0.004}),  # twice the longest way
        (0.6, 0.62, {0.067, 0.004}),  # no longer than the bucket takes to fill, and then slowly
    ],
)
async def test_where_ways_are_known_a_scout_is_waited_for_as_long_as_a_refusal_takes(
    way: float, waited: float, then: set[float]
) -> None:
    grants = await all_grants_of(60, reply=5.0, first_reply=max(way, 0.1), way=way)
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(grants)]
    assert pauses[10] == waited
    assert set(pauses[11:]) == then


@pytest.mark.parametrize(
    ("knows", "goes_on"),
    [
        (False, 0.55),  # the bucket takes until 1.3 to fill
        (True, 0.69),  # twice the longest way after the scout, not the last
    ],
)
async def test_who_waits_for_a_scout_goes_on_as_soon_as_ways_are_known(knows: bool, goes_on: float) -> None:
    loop, scheduler, grants = asyncio.get_running_loop(), Scheduler({"m": LIMITS}), list[float]()

    async def one() -> None:
        async with scheduler.reserve("m") as turn:
            grants.append(loop.time())
            if len(grants) == 1:
                await asyncio.sleep(0.2)
                if knows:
                    turn.observe(Observed())
            elif len(grants) == 2:  # of the others, the headers of this one alone are there while they wait
                await asyncio.sleep(0.35)
                turn.observe(Observed(worked=0.3))
                await asyncio.sleep(5)
            else:
                await asyncio.sleep(5)
            turn.used()

    await asyncio.gather(*(one() for _ in range(12)))
    assert grants[10] == pytest.approx(0.29)
    assert grants[11] == pytest.approx(goes_on)


async def test_before_the_first_answer_a_large_request_waits_for_no_more_than_a_refusal_to_the_last() -> None:
    assert await grants_of(20, reply=30.0, tokens=2_000) == [0.0, 0.25, 0.5]  # two seconds each


async def test_a_lane_that_has_been_beyond_a_second_opens_at_an_easy_pace() -> None:
    grants = await all_grants_of(300, reply=0.3, first_reply=0.1)
    assert grants[-1] - grants[-251] <= 1.05  # ten times its sustained rate would be a hundred a second


async def test_one_that_never_left_has_found_out_nothing() -> None:
    loop, scheduler = asyncio.get_running_loop(), Scheduler({"m": LIMITS})
    async with scheduler.reserve("m") as turn:
        turn.unsent()
    async with scheduler.reserve("m"):
        async with scheduler.reserve("m") as turn:
            turn.used()
        assert loop.time() == pytest.approx(0.26)  # a pace apart, and a patience


async def test_headers_open_a_lane_before_the_rest_of_the_reply_has_come() -> None:
    loop, grants = asyncio.get_running_loop(), list[float]()
    scheduler = Scheduler({"m": LIMITS[:1]}, patience=10.0)
    async with scheduler.reserve("m") as turn:
        turn.used()

    async def stream() -> None:
        async with scheduler.reserve("m") as turn:
            grants.append(loop.time())
            await asyncio.sleep(0.5)
            turn.observe(Observed())
            await asyncio.sleep(60)
            turn.used()

    await asyncio.gather(*(stream() for _ in range(20)))
    # The first that makes it more than ten in a second goes alone, until its headers come.
    pauses = [round(later - earlier, 2) for earlier, later in pairwise(grants)]
    assert max(pauses) == 0.5


async def test_requests_of_very_different_sizes_do_not_leave_in_one_instant() -> None:
    loop, scheduler, grants = asyncio.get_running_loop(), Scheduler({"m": LIMITS[1:]}, patience=0.0), list[float]()
    async with scheduler.reserve("m", tokens=100) as turn:
        turn.used()

    async def one(tokens: float) -> None:
        async with scheduler.reserve("m", tokens=tokens) as turn:
            grants.append(loop.time())
            turn.used()

    await asyncio.gather(*(one(tokens) for tokens in [100, 1_500] * 10))
    assert len(set(grants)) >= 15


async def test_no_refusal_pauses_a_lane_for_longer_than_the_longest_wait() -> None:
    loop, scheduler = asyncio.get_running_loop(), Scheduler({"m": LIMITS}, longest_wait=45.0)
    async with scheduler.reserve("m") as turn:
        turn.refused(Observed(retry_after=86_400.0), because_of_limit=False)
    async with scheduler.reserve("m") as turn:
        turn.used()
    assert loop.time() == 45.0


async def test_what_a_process_has_spent_is_taken_up_by_the_next() -> None:
    first = Scheduler({"m": LIMITS})
    async with first.reserve("m", tokens=30_000) as turn:
        turn.used()
    spent = first.spent()
    assert spent == {"m": {"RPM": pytest.approx(1), "TPM": pytest.approx(30_000)}}
    second = Scheduler({"m": LIMITS, "other": LIMITS}, resume=spent, elapsed=10.0)
    second.lane("other")
    await asyncio.sleep(5)  # a lane may be first asked for later: that time has passed, too
    second.lane("m")
    levels = [limit.level for limit in second.snapshot()[1].limits]
    assert levels == pytest.approx([RPM - 10, TPM - 1_000 - 15_000])


async def test_what_was_spent_of_a_cap_of_the_users_own_beside_the_published_one_is_taken_up_too() -> None:
    limits = [Limit("requests", 10, DAY, own=True), Limit("requests", 10_000, DAY)]
    first = Scheduler({"m": limits})
    for _ in range(8):
        async with first.reserve("m") as turn:
            turn.used()
    await asyncio.sleep(7_200)  # enough for the published one to be full again
    spent = first.spent()
    assert spent == {"m": {"RPD": pytest.approx(8 - 10 / 12)}}
    second = Scheduler({"m": limits}, resume=spent)
    second.lane("m")
    assert second.snapshot()[0].limits[0].level == pytest.approx(2 + 10 / 12, abs=0.001)


async def test_after_an_error_the_next_goes_ahead_at_once() -> None:
    loop, scheduler, grants = asyncio.get_running_loop(), Scheduler({"m": LIMITS}), list[float]()

    async def one() -> None:
        async with scheduler.reserve("m", tokens=101) as turn:
            grants.append(round(loop.time(), 2))
            await asyncio.sleep(0.2)
            turn.failed()

    await asyncio.gather(*(one() for _ in range(2)))
    assert grants == [0.0, 0.2]


async def grants_of(many: int, *, reply: float, tokens: float) -> list[float]:
    """Return when the first three of so many leave that all come at once."""
    return [round(at, 2) for at in (await all_grants_of(many, reply=reply, first_reply=reply, tokens=tokens))[:3]]


async def all_grants_of(
    many: int, *, reply: float, first_reply: float, tokens: float = 0, way: float | None = None
) -> list[float]:
    loop, scheduler, grants = asyncio.get_running_loop(), Scheduler({"m": LIMITS}), list[float]()

    async def one() -> None:
        async with scheduler.reserve("m", tokens=tokens) as turn:
            grants.append(loop.time())
            took = reply if len(grants) > 1 else first_reply
            await asyncio.sleep(took)
            if way is not None:
                turn.observe(Observed(worked=took - way))
            turn.used()

    await asyncio.gather(*(one() for _ in range(many)))
    return grants
