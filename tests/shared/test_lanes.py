"""Programs that share a lane: together at exactly the limit, each its part, whatever happens to one or to the store."""

from __future__ import annotations

import asyncio

import pytest
from servers import Ask, Network, Service, of_tokens, rival_steadily
from sharing import Program, wall_clock

from ratelimit.errors import SharedStoreAway
from ratelimit.limits.bucket import DAY, MINUTE, Limit

NETWORK = Network.steady(0.02, 0.3)
REQUESTS = [Limit("requests", 3000, MINUTE)]
TOKENS = [Limit("requests", 6000, MINUTE), Limit("tokens", 200_000, MINUTE)]
END = 36.0
LOWER = "the lower counts for both until the service tells"


def cap(limit: Limit, seconds: float) -> float:
    return limit.amount + seconds * limit.rate


@pytest.mark.parametrize("many", [1, 2, 8])
@pytest.mark.parametrize(("limits", "ask"), [(REQUESTS, Ask()), (TOKENS, of_tokens(500))], ids=["RPM", "TPM"])
async def test_together_they_use_the_whole_limit_and_no_more(many: int, limits: list[Limit], ask: Ask) -> None:
    service, store = Service.of(limits), wall_clock()
    programs = [Program(number, store, limits) for number in range(many)]
    await asyncio.gather(*(program.flood(service, NETWORK, 0, END, ask) for program in programs))
    got = sum(program.count(0, END) for program in programs) * (ask.charged or 1)
    assert service.refusals() == 0
    assert got >= 0.98 * cap(limits[-1], END)
    assert max(len(program.admitted) for program in programs) <= 1.1 * min(len(each.admitted) for each in programs)
    # What the others send is no drift: only an outsider would be.
    assert not any(program.drifts(least=1) for program in programs)
    assert sum(program.line.calls for program in programs) <= many * 20 * END


async def test_programs_get_by_weight_from_the_first_burst_on() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    heavy, light = Program(1, store, REQUESTS, weight=3), Program(2, store, REQUESTS)
    await asyncio.gather(*(each.flood(service, NETWORK, 0, END) for each in (heavy, light)))
    for start in (0, 20):
        mine, theirs = heavy.count(start, END), light.count(start, END)
        assert 0.72 <= mine / (mine + theirs) <= 0.78
    assert service.refusals() == 0


async def test_one_who_wants_little_gets_it_and_leaves_the_rest() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    hungry, modest = Program(1, store, REQUESTS), Program(2, store, REQUESTS)

    async def now_and_then() -> None:
        for _ in range(int(END * 4)):
            before = asyncio.get_running_loop().time()
            await modest.send(service, Network.steady(0.0, 0.0), Ask())
            waits.append(asyncio.get_running_loop().time() - before)
            await asyncio.sleep(0.25)

    waits: list[float] = []
    await asyncio.gather(hungry.flood(service, NETWORK, 0, END), now_and_then())
    await modest.leave()
    assert hungry.count(10, END) + modest.count(10, END) >= 0.99 * REQUESTS[0].rate * (END - 10)
    assert modest.count(0, END) >= 0.97 * END * 4 * 0.9
    assert sorted(waits)[len(waits) * 9 // 10] <= 0.1
    assert service.refusals() == 0


async def test_an_urgent_program_goes_before_another_ones_batch() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    batch, urgent = Program(1, store, REQUESTS), Program(2, store, REQUESTS, priority=-1)
    await asyncio.gather(batch.flood(service, NETWORK, 0, END), urgent.flood(service, NETWORK, 20, 30))
    assert urgent.count(23, 30) >= 0.97 * REQUESTS[0].rate * 7
    assert batch.count(23, 30) == 0
    assert batch.count(31, END) >= 0.97 * REQUESTS[0].rate * (END - 31)
    assert service.refusals() == 0


async def test_requests_as_large_as_the_whole_limit_take_turns() -> None:
    limits = [Limit("requests", 600, MINUTE), Limit("tokens", 60_000, MINUTE)]
    service, store = Service.of(limits), wall_clock()
    programs = [Program(number, store, limits) for number in range(2)]
    await asyncio.gather(*(each.flood(service, NETWORK, 0, 310, of_tokens(60_000), backlog=3) for each in programs))
    assert [program.count(0, 310) for program in programs] in ([3, 3], [3, 2], [2, 3])
    assert service.refusals() == 0


async def test_a_large_request_is_not_passed_for_ever_by_small_ones() -> None:
    limits = [Limit("requests", 600, MINUTE), Limit("tokens", 60_000, MINUTE)]
    service, store = Service.of(limits), wall_clock()
    small, large = Program(1, store, limits), Program(2, store, limits)
    await asyncio.gather(
        small.flood(service, NETWORK, 0, 300, of_tokens(500)),
        large.flood(service, NETWORK, 0, 300, of_tokens(30_000), backlog=2),
    )
    assert 4 <= large.count(60, 300) <= 5  # half of 240,000
    assert small.count(60, 300) * 500 >= 0.9 * 120_000
    assert service.refusals() == 0


async def test_what_a_dead_program_held_and_would_have_got_goes_to_the_others() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    programs = [Program(number, store, REQUESTS) for number in range(3)]

    async def die() -> None:
        await asyncio.sleep(15)
        programs[0].line.silent = True
        await programs[0].leave()

    floods = [asyncio.create_task(program.flood(service, NETWORK, 0, END)) for program in programs[1:]]
    dying = asyncio.create_task(programs[0].flood(service, NETWORK, 0, 14.99))
    await asyncio.gather(die(), dying, *floods)
    assert sum(program.count(16.5, END) for program in programs) >= 0.98 * REQUESTS[0].rate * (END - 16.5)
    assert service.refusals() == 0


async def test_who_joins_and_who_leaves() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    one, two = Program(1, store, REQUESTS), Program(2, store, REQUESTS)
    await asyncio.gather(one.flood(service, NETWORK, 0, END), two.flood(service, NETWORK, 20, 30))
    rate = REQUESTS[0].rate
    assert 0.47 * rate * 7 <= two.count(23, 30) <= 0.53 * rate * 7
    assert one.count(31, END) >= 0.97 * rate * (END - 31)
    assert service.refusals() == 0
    assert one.notices == ["sharing m tier-1 with 1 other program"]


@pytest.mark.parametrize("empty", [False, True], ids=["stopped", "restarted empty"])
async def test_a_store_that_is_away_for_six_seconds(empty: bool) -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    programs = [Program(number, store, REQUESTS) for number in range(3)]

    async def outage() -> None:
        await asyncio.sleep(15)
        for program in programs:
            program.line.cut = True
        await asyncio.sleep(6)
        if empty:
            store.forget()
        for program in programs:
            program.line.cut = False

    await asyncio.gather(outage(), *(program.flood(service, NETWORK, 0, 40) for program in programs))
    rate = REQUESTS[0].rate
    assert sum(program.count(15, 22) for program in programs) >= 0.9 * rate * 7
    assert sum(program.count(23, 40) for program in programs) >= 0.98 * rate * 17
    assert service.refusals() <= 2 * len(service.admitted) / 1000
    assert programs[0].notices[1:] == [
        "the store that shares m tier-1 does not answer: 33% of each limit is used until it is back",
        "the store that shares m tier-1 is back",
    ]


async def test_a_program_cut_off_from_the_store_and_the_others() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    programs = [Program(number, store, REQUESTS) for number in range(3)]

    async def partition() -> None:
        await asyncio.sleep(15)
        programs[0].line.silent = True
        await asyncio.sleep(8)
        programs[0].line.silent = False

    await asyncio.gather(partition(), *(program.flood(service, NETWORK, 0, 54) for program in programs))
    rate = REQUESTS[0].rate
    assert sum(program.count(15, 23) for program in programs) >= 0.9 * rate * 8
    # What they took for an outsider's turns out to be one of theirs: nothing is left to anybody any more.
    assert sum(program.count(24, 54) for program in programs) >= 0.99 * rate * 30
    assert service.refusals() <= 2 * len(service.admitted) / 1000


async def test_who_is_told_to_stop_sends_nothing_while_the_store_is_away() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    program = Program(1, store, REQUESTS, stops=True)

    async def outage() -> None:
        await asyncio.sleep(15)
        program.line.cut = True
        await asyncio.sleep(6)
        program.line.cut = False

    await asyncio.gather(outage(), program.flood(service, NETWORK, 0, 30))
    assert program.count(16.1, 21) == 0
    assert program.count(22, 30) >= REQUESTS[0].rate * 7
    assert service.refusals() == 0
    assert program.notices[0] == "the store that shares m tier-1 does not answer: nothing is sent until it is back"


async def test_an_outsider_is_still_made_way_for() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    programs = [Program(number, store, REQUESTS) for number in range(2)]
    rival = asyncio.create_task(rival_steadily(service, 0, 0.05, 120))  # 20 a second of 50
    await asyncio.gather(*(program.flood(service, NETWORK, 0, 120) for program in programs), rival)
    taken = len(service.rival)
    assert taken >= 0.8 * 20 * 120
    assert service.refusals() <= 5 * len(service.admitted) / 1000
    assert len(service.admitted) >= 0.93 * (cap(REQUESTS[0], 120) - taken)


@pytest.mark.parametrize(("many", "least"), [(1, 0.97), (3, 0.86)])
async def test_a_service_that_counts_each_second_is_used_evenly(many: int, least: float) -> None:
    service, store = Service.of(REQUESTS, kind="quantised"), wall_clock()
    programs = [Program(number, store, REQUESTS) for number in range(many)]
    await asyncio.gather(*(program.flood(service, NETWORK, 0, END) for program in programs))
    assert sum(program.count(6, END) for program in programs) >= least * REQUESTS[0].rate * (END - 6)
    assert service.refusals() <= 2 * many
    # One tells the others how the service counts, and each says no more than once what it has found out by itself.
    assert all(len([c for c in program.changes if c.kind == "burst"]) <= 1 for program in programs)


async def test_what_one_is_told_reaches_all_within_a_second() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    programs = [Program(number, store, REQUESTS) for number in range(2)]

    async def close() -> None:
        await asyncio.sleep(15)
        programs[0].scheduler.lane("m").cool(5)

    await asyncio.gather(close(), *(program.flood(service, NETWORK, 0, 30) for program in programs))
    assert programs[1].count(15.5, 20) == 0
    assert programs[1].count(21, 30) > 0


async def test_a_day_shared_by_programs_that_start_hours_apart() -> None:
    limits = [Limit("requests", 500, MINUTE), Limit("requests", 400, DAY)]
    service, store = Service.of(limits), wall_clock()
    programs = [Program(number, store, limits) for number in range(3)]
    ends = 5_000.0
    await asyncio.gather(
        *(
            program.flood(service, NETWORK, start, ends, backlog=5)
            for program, start in zip(programs, (0, 1_000, 2_000), strict=True)
        )
    )
    allowed = cap(limits[1], ends) - limits[1].rate
    assert service.refusals() == 0
    assert 0.99 * allowed <= len(service.admitted) <= allowed + 1


async def test_the_stricter_of_two_tables_holds_and_is_said_once() -> None:
    strict = [Limit("requests", 1500, MINUTE)]
    service = Service.of(strict, speaks=False)
    store = wall_clock()
    one, two = Program(1, store, REQUESTS), Program(2, store, strict)
    await asyncio.gather(one.flood(service, NETWORK, 5, END), two.flood(service, NETWORK, 0, END))
    assert service.refusals() == 0
    assert one.notices == [
        f"another program takes RPM of m tier-1 to be 1,500, not 3,000: {LOWER}",
        "sharing m tier-1 with 1 other program",
    ]
    assert two.notices == ["sharing m tier-1 with 1 other program"]


async def test_a_store_that_is_slow_to_answer_at_first_is_waited_for() -> None:
    service, store = Service.of(REQUESTS), wall_clock()
    program = Program(1, store, REQUESTS)
    program.line.cut = True
    flood = asyncio.create_task(program.flood(service, NETWORK, 0, 10))
    await asyncio.sleep(2)
    program.line.cut = False
    await flood
    assert program.count(2, 10) > REQUESTS[0].rate * 8
    assert program.count(0, 2) == 0


async def test_a_store_that_never_answered_says_so_and_lets_nothing_pass() -> None:
    program = Program(1, wall_clock(), REQUESTS)
    program.line.cut = True
    with pytest.raises(SharedStoreAway) as refused:
        async with program.scheduler.reserve("m"):
            pass
    assert str(refused.value) == (
        "shared limits at m tier-1: connection refused; start the store, or set RATELIMIT_SHARED=off if no other "
        "program uses the key"
    )


async def test_a_slow_first_answer_holds_nobody_up_for_a_part_of_the_day() -> None:
    service = Service.of(limits := [Limit("requests", 600, MINUTE), Limit("requests", 10_000, DAY)])
    program = Program(1, wall_clock(), limits)
    await program.flood(service, Network.steady(0.02, 60.0), 0, 20)
    assert program.count(0, 20) >= 0.9 * 20 * 10
    assert service.refusals() == 0


async def test_who_is_told_only_of_errors_is_not_held_up_either() -> None:
    program = Program(1, wall_clock(), [Limit("requests", 60, MINUTE), Limit("requests", 200, DAY)])
    for _ in range(3):
        async with program.scheduler.reserve("m") as turn:
            await asyncio.sleep(0.1)
            turn.failed()
    assert asyncio.get_running_loop().time() < 1
    await program.leave()
