"""A run that ends anywhere is continued by the next: every answer once, nothing enqueued twice, by either route.

Within one process a crash is a run that is cancelled at a moment of its virtual time, or at the n-th thing it writes
down: all that the next run has is what is on disk and at the service.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from batching import Batching, batches, codes, files, spoil, statuses

from ratelimit.jobs.batches.ledger import read
from ratelimit.jobs.budget import Options
from ratelimit.jobs.lines import Lines
from ratelimit.jobs.summary import Summary
from ratelimit.testing.mock import MockServer

HOUR, DAY = 3600.0, 86_400.0
WORDS = 25
NEVER = 1e-7  # requests a second: a batch that answers nothing


class Crash(Exception):
    """The power is gone."""


@pytest.fixture(autouse=True)
def by_the_loop(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """The time of day goes with the loop's, until it is set."""
    ahead = [0.0]

    def today() -> float:
        try:
            return 1.8e9 + ahead[0] + asyncio.get_running_loop().time()
        except RuntimeError:
            return 1.8e9 + ahead[0]

    monkeypatch.setattr("time.time", today)

    def set_forward(seconds: float) -> None:
        ahead[0] += seconds

    return set_forward


def tags(mock: MockServer) -> Counter[int]:
    """How often each batch's tag was used: an intent is one batch at most."""
    return Counter(int((about["metadata"] or {})["ratelimit_batch"]) for about in batches(mock))


def executed(mock: MockServer) -> int:
    """How many requests have been executed, and are paid for."""
    by_batch: int = sum(about["request_counts"]["completed"] for about in batches(mock))
    return by_batch + mock.stats.admitted


async def once(place: Batching, mock: MockServer, deadline: float | None, queue: int = 2_000) -> Summary:
    options = Options(deadline=deadline)
    return await place.batch(mock, options, both_routes=deadline is not None, tiers_file=place.queue_of(queue))


async def crash_after(place: Batching, mock: MockServer, seconds: float, deadline: float | None = None) -> None:
    run = asyncio.create_task(once(place, mock, deadline))
    await asyncio.wait([run], timeout=seconds)
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run


@pytest.mark.parametrize(
    ("rows", "deadline", "service"),
    [(60, None, {"batch_speed": 0.001}), (120, 2_400.0, {"batch_speed": 0.004, "latency": "0.2-3", "rpm": 3})],
    ids=["by batch", "by both routes"],
)
async def test_a_hundred_crashes_at_any_time(
    place: Batching, rows: int, deadline: float | None, service: dict[str, Any]
) -> None:
    """Paid for twice is at most what was on its way to the live API at a crash, which is reported as in doubt."""
    chance = random.Random(8)
    place.ask_for(rows, words=WORDS)
    async with MockServer(echo=True, batch_queue=2_000, **service) as mock:
        for _ in range(100):
            await crash_after(place, mock, chance.choice((chance.uniform(0, 2), chance.uniform(0, 60))), deadline)
        summary = await once(place, mock, deadline)
        assert set(tags(mock).values()) == {1}
        assert codes(mock) == {}
        twice = executed(mock) - rows
    assert 0 <= twice <= sum("in flight when the last run ended" in said for said in place.said)
    assert (sum(each.recalled for each in read(place.output)) > 0) == (deadline is not None)
    assert (summary.exit_code, summary.left) == (0, 0)
    place.expect_everything(rows, words=WORDS)


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize(
    ("deadline", "service"),
    [(None, {"batch_queue": 1_000}), (HOUR, {"batch_speed": NEVER})],
    ids=["by batch", "by both routes"],
)
async def test_a_crash_at_every_line_that_is_written(
    place: Batching, monkeypatch: pytest.MonkeyPatch, deadline: float | None, service: dict[str, Any], *, torn: bool
) -> None:
    """The n-th run crashes at its n-th line: before it is written, or in the middle of it."""
    place.ask_for(20, words=WORDS)
    whole, left, armed = Lines.append, [0], [True]

    def append(lines: Lines, record: bytes) -> None:
        left[0] -= 1
        if left[0] <= 0 and armed:
            if torn and left[0] == 0:
                with lines.path.open("ab") as file:
                    file.write(record[: len(record) // 2])
            raise Crash
        whole(lines, record)

    monkeypatch.setattr(Lines, "append", append)
    async with MockServer(echo=True, **service) as mock:
        for line in range(1, 200):
            left[0] = line
            try:
                await once(place, mock, deadline, 1_000)
            except (Crash, ExceptionGroup):
                continue
            break
        armed.clear()
        assert line > 10
        summary = await once(place, mock, deadline, 1_000)
        assert set(tags(mock).values()) == {1}
        assert files(mock) == []
        if deadline is None:
            assert executed(mock) == 20
    assert summary.exit_code == 0
    place.expect_everything(20, words=WORDS)


@pytest.mark.parametrize(("struck", "created"), [("files", 0), ("batches", 1)])
async def test_a_crash_while_the_service_is_asked(
    place: Batching, monkeypatch: pytest.MonkeyPatch, struck: str, created: int
) -> None:
    """The service has done what was asked, and the answer comes to nobody; the batch is on the third page of many."""
    place.ask_for(5)
    async with MockServer(echo=True) as mock:
        with monkeypatch.context() as patch:
            spoil(patch, mock, lambda _, method, path: 60.0 if (method, path) == ("POST", struck) else None)
            await crash_after(place, mock, 20)
        assert len(batches(mock)) == created
        for own in list(mock._batches._batches.values()):
            for number in range(250):
                others = {
                    **own.about,
                    "id": f"batch_of_others_{number}",
                    "metadata": {"ratelimit_job": 7},
                    "errors": {"object": "list", "data": None},
                }
                mock._batches._batches[others["id"]] = type(own)(own.account, others, own.source, own.cancelled)
        await place.batch(mock)
        own_ones = [about for about in batches(mock) if about["metadata"] != {"ratelimit_job": 7}]
        assert [about["request_counts"]["completed"] for about in own_ones] == [5]
        assert files(mock) == []
    place.expect_everything(5)


async def test_a_crash_before_the_files_of_a_batch_are_deleted(
    place: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.ask_for(5)
    async with MockServer(echo=True) as mock:
        with monkeypatch.context() as patch:
            spoil(patch, mock, lambda _, method, path: 60.0 if method == "DELETE" else None)
            await crash_after(place, mock, 20)
        place.expect_everything(5)
        assert [name.split("_")[-1] for name in files(mock)] == ["output.jsonl"]
        await place.batch(mock, batch_files="keep")
        assert len(files(mock)) == 1
        await place.batch(mock)
        assert files(mock) == []
        assert executed(mock) == 5


@pytest.mark.parametrize("set_by", [-3 * DAY, 3 * DAY])
async def test_a_clock_that_is_set_between_two_runs(
    place: Batching, by_the_loop: Callable[[float], None], set_by: float
) -> None:
    place.ask_for(20, words=WORDS)
    async with MockServer(echo=True, batch_queue=2_000, batch_speed=0.01) as mock:
        await crash_after(place, mock, 50)
        by_the_loop(set_by)
        summary = await once(place, mock, None)
        assert executed(mock) == 20
        assert set(tags(mock).values()) == {1}
        assert statuses(mock).keys() == {"completed"}
    assert summary.exit_code == 0
    place.expect_everything(20, words=WORDS)
