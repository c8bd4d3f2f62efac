"""Jobs that go both ways: as much as can be by batch, the rest live, each request once, and by the deadline."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Any

import pytest
from batching import Batching, batches, files, spoil, statuses
from jobbing import Json, ask, batch_line

from ratelimit.errors import KeyRejected
from ratelimit.jobs.batches.ledger import read
from ratelimit.jobs.budget import Options
from ratelimit.jobs.progress import PlainLines
from ratelimit.jobs.summary import Summary
from ratelimit.testing.mock import MockServer
from ratelimit.testing.mock.accounts import Account

HOUR = 3600.0
NEVER = 1e-7  # requests a second: a batch that answers nothing


async def auto(place: Batching, mock: MockServer, deadline: float, **settings: Any) -> tuple[Summary, float]:
    """Run a job both ways; returns how long it took besides."""
    clock = asyncio.get_running_loop().time
    began = clock()
    summary = await place.batch(mock, Options(deadline=deadline), both_routes=True, **settings)
    return summary, clock() - began


def by_batch(mock: MockServer) -> int:
    """How many requests have been executed in batches, and are paid for."""
    return sum(about["request_counts"]["completed"] for about in batches(mock))


async def test_batches_that_are_quick_answer_everything(place: Batching) -> None:
    place.ask_for(50)
    async with MockServer(echo=True) as mock:
        summary, _ = await auto(place, mock, 6 * HOUR)
        assert mock.stats.admitted == 0
        assert files(mock) == []
    assert (summary.exit_code, summary.batched, summary.answered) == (0, 50, 50)
    assert summary.saved == pytest.approx(summary.cost)
    assert place.said == [
        (
            "gpt-4o-mini: the live API needs 1 s for 50 requests; they go through the Batch API, which is 50% "
            "cheaper; what it has not answered in 5 h 44 min begins to move over"
        ),
    ]
    assert summary.lines()[4] == "deadline kept by 5 h 59 min"
    assert summary.lines()[3] == "routes   50 answers by the Batch API; $0.0001 saved"
    place.expect_everything(50)


@pytest.mark.parametrize("cancelling", [0.5, 595.0])
async def test_batches_that_answer_nothing_move_over_in_time(place: Batching, cancelling: float) -> None:
    """However long the service takes to cancel, the live API has time enough for everything."""
    place.ask_for(1_000)
    async with MockServer(echo=True, batch_speed=NEVER, batch_delay=cancelling) as mock:
        summary, took = await auto(place, mock, 2 * HOUR)
        assert by_batch(mock) == 0
        assert mock.stats.admitted == 1_000
    assert (summary.exit_code, summary.batched) == (0, 0)
    assert 1.6 * HOUR < took < 2 * HOUR
    place.expect_everything(1_000)


async def test_slow_answers_are_reckoned_with(place: Batching) -> None:
    """Two in flight, five seconds each: what bounds the live API is not its limits."""
    place.ask_for(600)
    async with MockServer(echo=True, batch_speed=NEVER, latency="5") as mock:
        summary, took = await auto(place, mock, HOUR, concurrency=2)
    assert summary.exit_code == 0
    assert took < HOUR
    place.expect_everything(600)


async def test_progress_shows_both_routes(place: Batching) -> None:
    place.ask_for(400)
    said: list[str] = []
    async with MockServer(echo=True, batch_speed=0.1) as mock:
        watcher = PlainLines(said.append)
        await place.batch(mock, Options(deadline=2_500), both_routes=True, watcher=watcher, rpm=60)
    assert re.search(
        r"^\d+ answered, 0 failed, \d+ left, .* \d+ in flight, .*; \d+ answers by batch, \d batch(?:es)?; "
        r"tokens enqueued: gpt-4o-mini [\d,]+ of 2,000,000$",
        said[2],
    ), said[2]


async def test_what_slow_batches_have_answered_is_kept_and_nothing_is_paid_for_twice(place: Batching) -> None:
    place.ask_for(1_000)
    async with MockServer(echo=True, batch_speed=0.02) as mock:
        summary, took = await auto(place, mock, 2 * HOUR)
        assert by_batch(mock) + mock.stats.admitted == 1_000
        assert by_batch(mock) == summary.batched > 500
        assert summary.attempts == 1_000
        assert mock.stats.admitted > 100
        assert "cancelled" in statuses(mock)
        assert mock._batches.enqueued("org-mock", "gpt-4o-mini") == 0
    assert took < 2 * HOUR
    moved = next(said for said in place.said if "moves over" in said)
    assert moved.startswith("5 batches of gpt-4o-mini would be too late: cancelled, and what is not answered there, ")
    place.expect_everything(1_000)


async def test_a_job_too_large_for_either_goes_both_ways_from_the_start(place: Batching) -> None:
    """The live API alone would be late, and so would batches, whose queue is small."""
    place.ask_for(1_500, words=25)
    tiers = place.queue_of(20_000)
    async with MockServer(echo=True, batch_queue=20_000, batch_speed=0.02, rpm=60) as mock:
        summary, took = await auto(place, mock, 2_400, tiers_file=tiers, rpm=60)
        assert by_batch(mock) + mock.stats.admitted == 1_500
        assert mock.stats.admitted > 200 < by_batch(mock)
    assert summary.exit_code == 0
    assert took < 2_400
    assert "so it begins at once, and the Batch API, which is 50% cheaper, answers what it can" in place.said[0]
    place.expect_everything(1_500, words=25)


async def test_a_deadline_that_cannot_hold_is_said_and_missed_by_as_little_as_can_be(place: Batching) -> None:
    place.ask_for(1_500)
    async with MockServer(echo=True, batch_speed=NEVER) as mock:
        summary, took = await auto(place, mock, 60)
        assert batches(mock) == []
    assert summary.exit_code == 0
    assert took < 135
    assert place.said[0].endswith("; the deadline is in 1 min 00 s, and only holds if that is enough")
    assert place.said[-1] == "the deadline has passed with 500 requests of gpt-4o-mini unanswered; going on"
    assert summary.lines()[-1].startswith("deadline missed by ")
    place.expect_everything(1_500)


async def test_what_one_route_cannot_take_the_other_does(place: Batching) -> None:
    large, small = ask("x " * 20_000), ask("understanding " * 600)
    tiers = place.path / "tiers.toml"
    tiers.write_text(
        "[models.gpt-4o-mini.tiers.tier-1]\nrpm = 500\ntpm = 5000\nbatch_queue = 30000\n"
        "[models.gpt-4o.tiers.tier-1]\nrpm = 500\ntpm = 50000\nbatch_queue = 500\n"
    )
    place.write(
        [
            batch_line("only-batch", large),
            batch_line("either", ask("either")),
            batch_line("only-live", {**small, "model": "gpt-4o"}),
        ]
    )
    async with MockServer() as mock:
        summary, _ = await auto(place, mock, 6 * HOUR, tiers_file=tiers)
        assert mock.stats.admitted == 1
    assert (summary.exit_code, summary.answered, summary.batched) == (0, 3, 2)


async def test_a_key_that_is_rejected_live_stops_all_and_loses_nothing(
    place: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.ask_for(300)
    async with MockServer(echo=True, batch_speed=0.01) as mock:
        with monkeypatch.context() as patch:
            spoil(patch, mock, lambda _, method, path: "invalid_key" if path.endswith("/cancel") and method else None)
            summary, _ = await auto(place, mock, HOUR)
            assert summary.exit_code == KeyRejected.exit_code
            assert [each.recalled for each in read(place.output)].count(True) >= 1
        summary, _ = await auto(place, mock, HOUR)
        assert by_batch(mock) + mock.stats.admitted == 300
    assert summary.exit_code == 0
    place.expect_everything(300)


async def test_the_deadline_counts_from_the_first_run(place: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("time.time", lambda: 1.8e9 + loop.time())
    place.ask_for(300)
    async with MockServer(echo=True, batch_speed=NEVER) as mock:
        run = asyncio.create_task(auto(place, mock, 2 * HOUR))
        await asyncio.sleep(HOUR)
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
        summary, took = await auto(place, mock, 2 * HOUR)
    assert summary.exit_code == 0
    assert 0.5 * HOUR < took < HOUR
    place.expect_everything(300)


async def test_a_batch_that_does_not_end_when_it_is_cancelled(place: Batching) -> None:
    """The others are in time; its rows wait for it, and that is said: when it is seen, at the deadline, at the end."""
    place.ask_for(1_000)
    looks: list[str] = []

    def half(account: Account, name: str) -> Json:
        batch = mock._batches.get(account, name)
        if name == stuck:
            mock._batches._enter(batch, "cancelling")
            return batch.about
        return cancel(account, name)

    async with MockServer(echo=True, batch_speed=NEVER) as mock:
        cancel, stuck = mock._batches.cancel, f"batch_{1:024x}"
        mock._batches.cancel = half  # type: ignore[method-assign]
        run = asyncio.create_task(auto(place, mock, 2 * HOUR, watcher=PlainLines(looks.append)))
        await asyncio.sleep(2 * HOUR - 60)
        rows = mock._batches._batches[stuck].about["request_counts"]["total"]
        assert len(place.answers()) == 1_000 - rows
        await asyncio.sleep(HOUR)
        cancel(mock._batches._batches[stuck].account, stuck)
        summary, took = await run
        assert (by_batch(mock), mock.stats.admitted, summary.attempts) == (0, 1_000, 1_000)
    assert 2.9 * HOUR < took < 3.1 * HOUR
    (seen,) = [said for said in place.said if said.startswith(f"batch {stuck} was cancelled ")]
    assert re.fullmatch(
        rf"batch {stuck} was cancelled 15 min \d\d s ago and is still cancelling: it is cancelled once more, and its "
        rf"{rows:,} requests wait for it, since sent another way they would be paid for twice",
        seen,
    )
    assert (
        f"the deadline has passed with {rows} requests of gpt-4o-mini unanswered, {rows} of them in batches that the "
        f"service does not end; going on"
    ) in place.said
    assert any("1 batch, 1 being cancelled (1 should be over)" in line for line in looks)
    assert summary.lines()[-1].startswith("deadline missed by 59 min ")
    assert summary.exit_code == 0
    place.expect_everything(1_000)


async def test_a_day_that_is_used_up_live_keeps_no_rows_from_the_batches(place: Batching) -> None:
    place.ask_for(1_000)
    async with MockServer(echo=True, batch_queue=3_000, batch_speed=0.02, rpd=48) as mock:
        summary, took = await auto(place, mock, 6 * HOUR, rpd=48, tiers_file=place.queue_of(3_000))
        assert by_batch(mock) + mock.stats.admitted == summary.attempts == 1_000
        assert 48 <= mock.stats.admitted <= 54
    assert summary.exit_code == 0
    assert took < 2 * HOUR
    place.expect_everything(1_000)


async def test_batches_go_on_where_the_live_api_would_be_late_by_far(place: Batching) -> None:
    place.ask_for(1_000)
    async with MockServer(echo=True, batch_speed=0.05, rpm=2) as mock:
        summary, took = await auto(place, mock, 60, rpm=2)
        assert by_batch(mock) + mock.stats.admitted == summary.attempts == 1_000
    assert summary.exit_code == 0
    assert took < 1.2 * HOUR  # all of them live take eight hours, and what a batch has left takes it longer than that
    place.expect_everything(1_000)
