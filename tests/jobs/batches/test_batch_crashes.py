"""A run that ends anywhere is continued by the next: every answer once, nothing enqueued twice.

Within one process a crash is a run that is cancelled at a moment of its virtual time, or at the n-th thing it writes
down: all that the next run has is what is on disk and at the service.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress

import pytest
from batching import Batching, batches, codes, files, spoil

from ratelimit.jobs.lines import Lines
from ratelimit.testing.mock import MockServer

ROWS, QUEUE, WORDS = 60, 2_000, 25


class Crash(Exception):
    """The power is gone."""


def tags(mock: MockServer) -> Counter[int]:
    """How often each batch's tag was used: an intent is one batch at most."""
    return Counter(int((about["metadata"] or {})["ratelimit_batch"]) for about in batches(mock))


def executed(mock: MockServer) -> int:
    """How many requests have been executed, and are paid for."""
    return sum(about["request_counts"]["completed"] for about in batches(mock))


async def crash_after(place: Batching, mock: MockServer, seconds: float) -> None:
    run = asyncio.create_task(place.batch(mock, tiers_file=place.queue_of(QUEUE)))
    await asyncio.wait([run], timeout=seconds)
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run


async def test_a_hundred_crashes_at_any_time(place: Batching) -> None:
    chance = random.Random(8)
    place.ask_for(ROWS, words=WORDS)
    async with MockServer(echo=True, batch_queue=QUEUE, batch_speed=0.001) as mock:
        for _ in range(100):
            await crash_after(place, mock, chance.choice((chance.uniform(0, 2), chance.uniform(0, 60))))
        summary = await place.batch(mock, tiers_file=place.queue_of(QUEUE))
        assert executed(mock) == ROWS
        assert set(tags(mock).values()) == {1}
        assert codes(mock) == {}
    assert (summary.exit_code, summary.left) == (0, 0)
    place.expect_everything(ROWS, words=WORDS)


@pytest.mark.parametrize("torn", [False, True])
async def test_a_crash_at_every_line_that_is_written(
    place: Batching, monkeypatch: pytest.MonkeyPatch, *, torn: bool
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
    async with MockServer(echo=True, batch_queue=1_000) as mock:
        for line in range(1, 200):
            left[0] = line
            with suppress(Crash):
                try:
                    await place.batch(mock, tiers_file=place.queue_of(1_000))
                except ExceptionGroup:
                    continue
                break
        armed.clear()
        assert line > 10
        summary = await place.batch(mock, tiers_file=place.queue_of(1_000))
        assert executed(mock) == 20
        assert set(tags(mock).values()) == {1}
    assert summary.exit_code == 0
    place.expect_everything(20, words=WORDS)


@pytest.mark.parametrize(("struck", "created"), [("files", 0), ("batches", 1)])
async def test_a_crash_while_the_service_is_asked(
    place: Batching, monkeypatch: pytest.MonkeyPatch, struck: str, created: int
) -> None:
    """The service has done what was asked, and the answer comes to nobody."""
    place.ask_for(5)
    async with MockServer(echo=True) as mock:
        with monkeypatch.context() as patch:
            spoil(patch, mock, lambda _, method, path: 60.0 if (method, path) == ("POST", struck) else None)
            await crash_after(place, mock, 20)
        assert len(batches(mock)) == created
        await place.batch(mock)
        assert executed(mock) == 5
        assert len(batches(mock)) == 1
        assert files(mock) == []
    place.expect_everything(5)
