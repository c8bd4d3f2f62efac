"""The service goes away, in virtual time: calls and memory are bounded, nothing is lost, and it ends by itself."""

from __future__ import annotations

import tracemalloc

import pytest
from checking import check
from jobbing import Place, batch_line

from ratelimit.jobs.budget import Options
from ratelimit.testing.mock import MockServer

ROWS = 1_200
GOES, COMES = 60, 3_660
HOUR = f"between={GOES}s-{COMES}s"


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        ("refuse", 400),  # no connection: what was sent before is all there is, then one probe in half a minute
        ("500", 400),
        ("storm", 200),  # refused: the lane is closed for ever longer
        ("stall", 1_010),  # silence is seen when the first waits of ten minutes end; until then all may be in flight
    ],
)
async def test_an_hour_away_costs_few_calls_and_no_row(place: Place, kind: str, calls: int) -> None:
    place.write(batch_line(f"row-{n}") for n in range(ROWS))
    log = place.path / "served.jsonl"
    async with MockServer(tier="tier-1", echo=True, latency="0.5", faults=[f"{kind}:{HOUR}"], log=log) as mock:
        summary = await place.run(mock)
        timeline = mock.stats.timeline()
    check(place.output, {f"row-{n}": f"what is row-{n}?" for n in range(ROWS)}, log=log)
    assert sum(each["arrived"] for each in timeline if GOES <= each["second"] < COMES) <= calls
    assert summary.attempts <= ROWS + calls
    back = next(each["second"] for each in timeline if each["second"] >= COMES and each["admitted"] > each["failed"])
    assert back - COMES <= 63  # one window, and the second and the reply that the first request takes
    # What is left then goes at full speed again: 500 a minute are a bucket and a half for these.
    assert summary.seconds <= COMES + 63 + 300


async def test_a_service_that_flaps_each_second_is_asked_no_more_than_it_allows(place: Place) -> None:
    place.write(batch_line(f"row-{n}") for n in range(ROWS))
    flaps = [f"500:between={second}s-{second + 1}s" for second in range(0, 600, 2)]
    async with MockServer(tier="tier-1", echo=True, latency="0.5", faults=flaps) as mock:
        summary = await place.run(mock)
        assert mock.stats.refused.total() == 0
        assert mock.stats.arrived <= 3 * ROWS
    left = check(place.output, {f"row-{n}": f"what is row-{n}?" for n in range(ROWS)}, exit_code=summary.exit_code)
    assert len(left.failures) <= ROWS * 0.02  # six attempts in a row at one in two: one in 64 at most


@pytest.mark.parametrize("faults", [[], ["stall:rate=0.5,between=0s-1800s"]])
async def test_slow_replies_and_silent_halves_are_waited_for(place: Place, faults: list[str]) -> None:
    place.write(batch_line(f"row-{n}") for n in range(300))
    async with MockServer(tier="tier-1", echo=True, latency="60", faults=faults) as mock:
        tracemalloc.start()
        summary = await place.run(mock, Options(concurrency=1_000), first_byte_timeout=120.0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    left = check(place.output, {f"row-{n}": f"what is row-{n}?" for n in range(300)}, exit_code=summary.exit_code)
    assert len(left.failures) <= 20  # silent six times over
    assert peak < 60_000_000  # with both ends of every connection in this process
