"""Jobs through the Batch API, against the mock, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from batching import Batching, Watch, batches, codes, files, statuses
from jobbing import ask, batch_line

from ratelimit.jobs.budget import Options
from ratelimit.jobs.dashboard import state
from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.jobs.standing import Standing, look
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import load
from ratelimit.metrics import Metrics
from ratelimit.testing.mock import MockServer

QUEUE = 20_000
WORDS = 25  # a hundred tokens or so, at four bytes each: the count that the mock goes by


async def test_a_job_that_fits_is_one_batch_and_leaves_nothing_behind(place: Batching) -> None:
    place.ask_for(50)
    async with MockServer(echo=True) as mock:
        summary = await place.batch(mock)
        assert statuses(mock) == {"completed": 1}
        assert files(mock) == []
    assert summary.exit_code == 0
    assert (summary.total, summary.answered, summary.left) == (50, 50, 0)
    place.expect_everything(50)


async def test_the_price_is_that_of_the_batch_api(place: Batching) -> None:
    place.ask_for(20)
    async with MockServer(echo=True) as mock:
        half = await place.batch(mock)
        place.output.unlink()
        whole = await place.run(mock)
    assert half.cost == pytest.approx(whole.cost / 2)
    assert half.cost > 0


async def test_the_same_command_again_has_nothing_to_do(place: Batching) -> None:
    place.ask_for(5)
    async with MockServer(echo=True) as mock:
        await place.batch(mock)
        summary = await place.batch(mock)
        assert len(batches(mock)) == 1
    assert (summary.answered, summary.done_before, summary.left) == (0, 5, 0)
    place.expect_everything(5)


async def test_what_the_live_api_has_answered_is_not_enqueued(place: Batching) -> None:
    place.ask_for(10)
    async with MockServer(echo=True) as mock:
        await place.run(mock, Options(limit=4))
        await place.batch(mock)
        assert [each["request_counts"]["total"] for each in batches(mock)] == [6]
    place.expect_everything(10)


async def test_files_are_kept_where_they_are_asked_for(place: Batching) -> None:
    place.ask_for(5)
    async with MockServer(echo=True) as mock:
        await place.batch(mock, batch_files="keep")
        assert [name.split("_")[-1].split("-")[-1] for name in files(mock)] == ["1.jsonl", "output.jsonl"]


async def test_each_model_and_endpoint_has_batches_of_its_own(place: Batching) -> None:
    place.write(
        [
            batch_line("a", ask("a")),
            batch_line("b", ask("b", model="gpt-4o-mini-2024-07-18")),
            batch_line("c", ask("c", model="gpt-4.1-mini")),
            '{"custom_id": "d", "url": "/v1/embeddings", "body": {"model": "text-embedding-3-small", "input": "d"}}',
            '{"custom_id": "e", "url": "/v1/responses", "body": {"model": "gpt-4o-mini", "input": "e"}}',
        ]
    )
    async with MockServer() as mock:
        summary = await place.batch(mock)
        assert statuses(mock) == {"completed": 5}
        assert sorted(each["endpoint"] for each in batches(mock)) == [
            *["/v1/chat/completions"] * 3,
            "/v1/embeddings",
            "/v1/responses",
        ]
    assert summary.answered == 5
    assert {record["custom_id"] for record in place.records()} == set("abcde")


async def test_a_queue_smaller_than_the_job_is_kept_full_and_never_exceeded(place: Batching) -> None:
    place.ask_for(400, words=WORDS)
    async with MockServer(echo=True, batch_queue=QUEUE, batch_speed=0.01) as mock:
        watch = Watch(mock)
        watching = asyncio.create_task(watch.watch())
        summary = await place.batch(mock, tiers_file=place.queue_of(QUEUE))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        assert codes(mock) == {}
    assert summary.exit_code == 0
    assert max(watch.levels) <= QUEUE
    # Work is left until the last time that the queue was full.
    filled = watch.levels[: max(at for at, level in enumerate(watch.levels) if level > 0.97 * QUEUE)]
    assert sum(filled) / len(filled) >= 0.95 * QUEUE
    place.expect_everything(400, words=WORDS)


async def test_a_request_larger_than_the_queue_is_refused_by_name(place: Batching) -> None:
    place.write([batch_line("small", ask("small")), batch_line("large", ask("x " * 600))])
    async with MockServer(echo=True, batch_queue=500) as mock:
        summary = await place.batch(mock, tiers_file=place.queue_of(500))
    assert summary.exit_code == 1
    assert place.answers() == {"small": "small"}
    assert place.errors() == {
        "large": "this request needs 608 of the batch queue of gpt-4o-mini, which allows at most 500 at once; "
        "lower max_tokens, split the prompt, or choose a higher tier"
    }


async def test_no_more_batches_are_created_in_an_hour_than_may_be(
    place: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelimit.jobs.batches.runner._MOST_CREATED", 5)
    place.ask_for(18, words=WORDS)
    async with MockServer(echo=True, batch_queue=1_000) as mock:
        assert (await place.batch(mock, tiers_file=place.queue_of(1_000))).exit_code == 0
        created = [about["created_at"] for about in batches(mock)]
    assert len(created) > 10
    assert all(later - earlier >= 3600 for earlier, later in zip(created, created[5:], strict=False))
    place.expect_everything(18, words=WORDS)


async def test_who_looks_on_sees_the_queue_as_a_limit_of_its_lane(place: Batching) -> None:
    place.ask_for(40, words=WORDS)
    seen: list[tuple[Standing, str]] = []

    class Looks(Watcher):
        async def watch(self, run: Watched, client: Sending) -> None:
            await asyncio.sleep(250)
            metrics = Metrics()
            metrics.follow(client)
            seen.append((look(run, client), metrics.text()))

    async with MockServer(echo=True, batch_queue=1_000, batch_speed=0.01) as mock:
        await place.batch(mock, tiers_file=place.queue_of(1_000), watcher=Looks())
    ((standing, text),) = seen
    (lane,) = standing.lanes
    (limit,) = lane.limits
    assert (limit.name, limit.limit) == ("batch queue", 1_000)
    assert 0.9 < limit.used_last_minute <= 1
    assert standing.in_flight + standing.waiting == standing.left == 20
    assert standing.limited_by == "limited by batch queue"
    assert f'ratelimit_utilisation{{model="gpt-4o-mini",dim="batch queue"}} {limit.used_last_minute:.15g}' in text
    assert "batch queue" in state(standing, Tally(load()))


class AppendingOnce(Watcher):
    """Appends to the input of a run that has looked through it."""

    def __init__(self, place: Batching, line: str) -> None:
        self._place, self._line = place, line

    async def watch(self, run: Watched, client: Sending) -> None:
        del client
        while not run.tally.begun:  # noqa: ASYNC110 - nothing tells of the beginning but the tally
            await asyncio.sleep(0)
        with self._place.requests.open("a") as file:
            file.write(f"{self._line}\n")


async def test_what_is_appended_during_a_run_is_for_the_next(place: Batching) -> None:
    place.ask_for(3)
    async with MockServer(echo=True) as mock:
        summary = await place.batch(mock, watcher=AppendingOnce(place, batch_line("row-3", ask("what is 000003?"))))
        place.expect_everything(3)
        again = await place.batch(mock)
    assert (summary.answered, summary.left, again.answered) == (3, 0, 1)
    place.expect_everything(4)
