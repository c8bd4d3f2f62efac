"""What stops a run early, in virtual time: nothing is lost, and the same command continues."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from jobbing import Place, ask, batch_line

from ratelimit.errors import OutputFailed
from ratelimit.jobs import lines
from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.testing.mock import MockServer

DAY = 86_400


class After(Watcher):
    """Does something to a run that has so many answers."""

    def __init__(self, answers: int, *signals: int) -> None:
        self.answers = answers
        self.signals = signals
        self.at = 0.0

    async def watch(self, run: Watched, client: Sending) -> None:
        while run.tally.answers < self.answers:  # noqa: ASYNC110 - nothing tells of answers but the count
            await asyncio.sleep(0.01)
        self.at = asyncio.get_running_loop().time()
        for number in self.signals:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)


def rows(place: Place, count: int, **more: int) -> None:
    place.write(batch_line(f"row-{n}", ask(f"what is row-{n}?") | more) for n in range(count))


async def test_a_limit_sends_only_so_many_rows(place: Place) -> None:
    rows(place, 30)
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock, Options(limit=12))
        assert mock.stats.arrived == 12
        assert (summary.answered, summary.left, summary.stopped, summary.exit_code) == (12, 18, None, 0)
        await place.run(mock, Options(limit=12))
        assert mock.stats.arrived == 24


async def test_a_run_sends_no_more_requests_than_it_may_retries_included(place: Place) -> None:
    rows(place, 30)
    async with MockServer(tier="tier-1", echo=True) as mock:
        mock.fail_next("500", times=3)
        summary = await place.run(mock, Options(max_requests=10))
        assert mock.stats.arrived == 10
        assert summary.stopped == "the run has sent the 10 requests it may; run again for the rest"
        assert (summary.exit_code, summary.failed, summary.attempts) == (3, 0, 10)
        assert 7 <= summary.answered == len(place.answers())
        summary = await place.run(mock)
    assert len(place.answers()) == 30
    assert summary.exit_code == 0


async def test_as_many_rows_as_requests_is_all_done(place: Place) -> None:
    rows(place, 10)
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock, Options(max_requests=10))
    assert (summary.stopped, summary.exit_code) == (None, 0)


async def test_a_run_never_spends_more_than_it_may(place: Place) -> None:
    rows(place, 60, max_completion_tokens=1000)
    async with MockServer(tier="tier-1", output_tokens="400", latency="0.5") as mock:
        summary = await place.run(mock, Options(max_cost=0.01))
        assert summary.stopped == (
            "the run has spent $0.0094 of the $0.01 it may, and the next request can cost $0.0006; raise --max-cost, "
            "or cap answers with max_completion_tokens, and run again"
        )
        # 400 tokens at $0.60 a million and a dozen at $0.15 are $0.000242; the last may cost $0.0006
        assert (summary.answered, summary.exit_code) == (39, 3)
        assert 0.01 - 0.000603 < summary.cost < 0.01


async def test_a_deadline(place: Place) -> None:
    rows(place, 200)
    async with MockServer(tier="tier-1", echo=True, latency="3", rpm=60) as mock:
        summary = await place.run(mock, Options(deadline=90))
        assert mock.stats.answered_twice == 0
        assert summary.stopped == "the deadline of 1 min 30 s has passed; run again for the rest"
        assert summary.exit_code == 3
        assert 90 <= summary.seconds <= 93.1  # what was on its way was waited for
        assert summary.left == 200 - summary.answered
        assert 140 <= summary.answered == len(place.answers()) == mock.stats.admitted


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("insufficient_quota", "the account's quota is used up (insufficient_quota): "),
        ("invalid_key", "the service rejected the API key (401): "),
    ],
)
async def test_no_credits_and_no_key_leave_the_rows_untouched(place: Place, kind: str, reason: str) -> None:
    rows(place, 40)
    async with MockServer(tier="tier-1", echo=True) as mock:
        mock.fault(f"{kind}:from=11")
        summary = await place.run(mock)
        assert summary.stopped is not None
        assert summary.stopped.startswith(reason)
        assert (summary.exit_code, summary.failed) == (3, 0)
        assert summary.answered < 40
        assert place.records("results.errors.jsonl") == []
        mock.clear_faults()
        again = await place.run(mock)
    assert place.said == []  # a refusal was not billed, so nothing is in doubt
    assert again.exit_code == 0
    assert len(place.answers()) == 40


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP, signal.SIGHUP]])
async def test_one_signal_waits_for_what_is_in_flight(place: Place, numbers: list[int]) -> None:
    rows(place, 100)
    after = After(30, *numbers)
    async with MockServer(tier="tier-1", echo=True, latency="2") as mock:
        summary = await place.run(mock, Options(concurrency=10), watcher=after)
        arrived = mock.stats.arrived
        assert summary.answered == arrived == len(place.answers())
        assert (summary.exit_code, summary.stopped) == (
            130,
            "the run was interrupted; the same command continues it",
        )
        assert place.said == ["stopping: what is in flight is waited for; once more to leave at once"]
        assert summary.seconds - after.at <= 2.0
        await place.run(mock)
        assert mock.stats.arrived == 100
    assert len(place.answers()) == 100


async def test_a_signal_is_heeded_where_nobody_hears_what_is_said_of_it(place: Place) -> None:
    rows(place, 100)
    async with MockServer(tier="tier-1", echo=True, latency="2") as mock:
        place.said = Deaf()
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        summary = await place.run(mock, Options(concurrency=10), watcher=After(30, signal.SIGINT))
    assert summary.exit_code == 130
    assert summary.answered < 100


class Deaf(list[str]):
    """Has what is said to it fail."""

    def append(self, _: str) -> None:
        raise BrokenPipeError


async def test_a_closed_terminal_means_nothing_to_what_was_started_with_nohup(place: Place) -> None:
    rows(place, 40)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with MockServer(tier="tier-1", echo=True, latency="2") as mock:
            summary = await place.run(mock, Options(concurrency=10), watcher=After(20, signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (summary.answered, summary.exit_code) == (40, 0)


async def test_two_signals_leave_at_once(place: Place) -> None:
    rows(place, 100)
    after = After(30, signal.SIGINT, signal.SIGINT)
    async with MockServer(tier="tier-1", echo=True, latency="2") as mock:
        summary = await place.run(mock, Options(concurrency=10), watcher=after)
        assert summary.seconds - after.at <= 0.2
        assert summary.exit_code == 130
        answered = len(place.answers())
        place.said.clear()
        again = await place.run(mock)
    assert again.in_doubt == mock.stats.arrived - 100 == len({*range(10)})
    (said,) = place.said
    assert said.startswith("10 requests were in flight when the last run ended; they may have been billed: row-")
    assert answered + again.answered == len(place.answers()) == 100


async def test_what_takes_too_long_is_not_waited_for(place: Place) -> None:
    rows(place, 5)
    async with MockServer(tier="tier-1", echo=True, latency="200") as mock:
        summary = await place.run(mock, Options(deadline=10, drain=30))
    assert (summary.answered, summary.exit_code) == (0, 3)
    assert 40 <= summary.seconds < 41


async def test_what_fails_while_stopping_is_left_for_the_next_run(place: Place) -> None:
    rows(place, 5)
    async with MockServer(tier="tier-1", echo=True, latency="20") as mock:
        mock.fault("500:every=1")
        summary = await place.run(mock, Options(deadline=10))
        assert mock.stats.arrived == 5
        assert (summary.answered, summary.failed, summary.left, summary.exit_code) == (0, 0, 5, 3)
        assert summary.seconds < 22


async def test_a_full_disk_stops_the_run_with_every_line_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    append, room = lines.Lines.append, [40]

    def until_full(self: lines.Lines, record: bytes) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OutputFailed(str(self.path), "No space left on device")
        append(self, record)

    rows(place, 50)
    async with MockServer(tier="tier-1", echo=True) as mock:
        with monkeypatch.context() as disk:
            disk.setattr(lines.Lines, "append", until_full)
            summary = await place.run(mock)
        assert summary.exit_code == 3
        assert summary.stopped is not None
        assert summary.stopped.endswith(
            " failed: No space left on device; make room or choose another place, then run again: every line that was "
            "written is whole"
        )
        again = await place.run(mock)
    assert again.exit_code == 0
    assert len(place.answers()) == 50


async def test_a_job_of_days_says_so_and_waits_through_them(place: Place) -> None:
    rows(place, 30)
    async with MockServer(tier="tier-1", echo=True, rpm=60, rpd=20) as mock:
        summary = await place.run(mock, rpm=60, rpd=20)
    (said,) = place.said
    assert said == (
        "gpt-4o-mini allows 20 requests a day, of which 20 are left now; 30 take about 12 h 00 min: the run waits for "
        "them, and may be stopped and continued at any time"
    )
    assert len(place.answers()) == 30
    assert (summary.refused, summary.exit_code) == (0, 0)
    assert DAY / 2 - 60 <= summary.seconds <= DAY / 2 + 600


async def test_a_run_that_is_not_to_wait_for_tomorrow(place: Place) -> None:
    rows(place, 90)
    async with MockServer(tier="tier-1", echo=True, rpm=60, rpd=20) as mock:
        summary = await place.run(mock, Options(pause_at_daily_limit=True), rpm=60, rpd=20)
        (said,) = place.said
        assert said == (
            "gpt-4o-mini allows 20 requests a day, of which 20 are left now; 90 take about 3 d 12 h: the run stops "
            "when they are used up"
        )
        assert summary.stopped == "the daily limit of gpt-4o-mini is reached; run again tomorrow for the rest"
        assert (summary.answered, summary.exit_code) == (20, 3)
        place.said.clear()
        again = await place.run(mock, Options(pause_at_daily_limit=True), rpm=60, rpd=20)
    assert again.answered == 0  # the journal knows what was spent
    (said,) = place.said
    assert said == (
        "gpt-4o-mini allows 20 requests a day, of which 0 are left now; 70 take about 3 d 11 h: the run stops when "
        "they are used up"
    )
