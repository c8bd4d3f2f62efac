"""Workers that share a checkpoint: what one has had answered, none asks again, whatever becomes of the one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jobbing import ask, batch_line

from ratelimit.admission.shared.memory import MemoryStore
from ratelimit.admission.shared.store import Answer, Ask, Store, StoreAway
from ratelimit.compose import make_client
from ratelimit.errors import OutputUnusable, RequestInvalid
from ratelimit.jobs import records
from ratelimit.jobs.checkpoint import Checkpoint, Places
from ratelimit.jobs.source import Row, Source, digest
from ratelimit.jobs.worker import Worker
from ratelimit.settings import load_settings
from ratelimit.testing.mock import MockServer


def rows(numbers: range) -> list[Row]:
    return [Source("-").row(number, batch_line(f"row-{number}").encode()) for number in numbers]


@asynccontextmanager
async def working(
    mock: MockServer, directory: Path, *, retry_failed: bool = False, store: Store | None = None, **given: Any
) -> AsyncIterator[Worker]:
    settings = load_settings(**{"base_url": mock.base_url, "api_key": "sk-test", "tier": "tier-5", **given})
    with Checkpoint(directory, retry_failed=retry_failed) as checkpoint:
        async with make_client(settings, store=store) as client:
            yield Worker(client, checkpoint)


def as_a_kill_leaves(directory: Path) -> Callable[[], int]:
    """Look at the files now; what is returned puts them back, whole lines and half of one, and counts the lines."""
    kept = {path: path.read_bytes() for path in directory.iterdir()}

    def put_back() -> int:
        for path, content in kept.items():
            path.write_bytes(content + content[:100])
        return b"".join(kept.values()).count(b"\n")

    return put_back


def served(mock: MockServer) -> int:
    return mock.stats.statuses[200]


async def test_nobody_asks_what_another_has_had_answered(tmp_path: Path) -> None:
    async with (
        MockServer(tier="tier-5", echo=True) as mock,
        working(mock, tmp_path) as one,
        working(mock, tmp_path) as two,
    ):
        first = await one.answer(rows(range(60)))
        both = await two.answer(rows(range(30, 90)))
        assert served(mock) == 90
    assert both[:30] == first[30:]
    for number, outcome in enumerate(first):
        assert outcome.error is None
        assert f"what is row-{number}?" in json.loads(outcome.body or "")["choices"][0]["message"]["content"]


async def test_a_worker_begun_anew_asks_only_what_was_on_its_way(tmp_path: Path) -> None:
    async with MockServer(tier="tier-5", latency=1.0) as mock:
        async with working(mock, tmp_path, concurrency=10) as killed:
            under_way = asyncio.create_task(killed.answer(rows(range(100))))
            await asyncio.sleep(4.5)
            put_back, before = as_a_kill_leaves(tmp_path), served(mock)
            await under_way
        answered = put_back()
        assert 0 < answered <= before <= answered + 10
        async with working(mock, tmp_path) as restarted:
            outcomes = await restarted.answer(rows(range(100)))
        assert [outcome.error for outcome in outcomes] == [None] * 100
        assert served(mock) == 100 + 100 - answered


async def test_the_same_row_at_the_same_time_is_asked_once(tmp_path: Path) -> None:
    async with MockServer(tier="tier-5", latency=1.0) as mock, working(mock, tmp_path) as one:
        twice = await asyncio.gather(one.answer(rows(range(5)) * 2), one.answer(rows(range(5))))
        assert served(mock) == 5
    assert twice[0] == twice[1] * 2


async def test_failures_are_outcomes_and_kept_until_asked_for_again(tmp_path: Path) -> None:
    refused = Source("-").row(0, batch_line("long", ask("?", max_tokens=10**9)).encode())
    broken = [Source("-").row(0, line) for line in (b"[1]", b"{")]
    async with MockServer(tier="tier-5", faults=["500:times=2"]) as mock:
        async with working(mock, tmp_path, retry_attempts=1) as one:
            outcomes = await one.answer([*rows(range(1)), *broken, refused])
        assert [outcome.body for outcome in outcomes] == [None] * 4
        assert outcomes[1].error != outcomes[2].error
        async with working(mock, tmp_path) as again:
            assert await again.answer([*rows(range(1)), *broken, refused]) == outcomes
        assert served(mock) == 0
        for statuses in (2, 3):  # the first fails once more, and asks no third time in one run
            async with working(mock, tmp_path, retry_failed=True, retry_attempts=1) as bold:
                (outcome,) = await bold.answer(rows(range(1)))
                assert await bold.answer(rows(range(1))) == [outcome]
            assert mock.stats.statuses.total() == statuses
        assert outcome.error is None


async def test_what_stops_everything_is_every_rows_outcome_and_kept_for_none(tmp_path: Path) -> None:
    async with MockServer(tier="tier-5", faults=["invalid_key:times=1"]) as mock:
        async with working(mock, tmp_path, concurrency=1) as one:
            outcomes = await one.answer(rows(range(20)))
        assert all((outcome.error or "").startswith("key_rejected: ") for outcome in outcomes)
        assert mock.stats.statuses.total() == 1
        async with working(mock, tmp_path) as again:
            assert [outcome.error for outcome in await again.answer(rows(range(20)))] == [None] * 20


async def test_a_full_disk_loses_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MockServer(tier="tier-5") as mock, working(mock, tmp_path, concurrency=1) as one:
        await one.answer(rows(range(1)))

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        outcomes = await one.answer(rows(range(20)))
        assert [outcome.error for outcome in outcomes[:2]] == [None, None]
        assert all((outcome.error or "").startswith("output_failed: ") for outcome in outcomes[2:])
        assert served(mock) == 2


def test_a_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    (row,) = rows(range(1))
    line = records.gave_up(row, RequestInvalid("it is odd", "mend it")) + b"\n"
    with Checkpoint(tmp_path) as checkpoint, (tmp_path / "worker-other.jsonl").open("ab", buffering=0) as other:
        other.write(line[:40])
        checkpoint.refresh()
        assert checkpoint.find(row) is None
        other.write(line[40:])
        checkpoint.refresh()
        assert checkpoint.find(row) == records.outcome(line)


async def test_lines_that_are_none_of_ours_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "worker-odd.jsonl").write_bytes(b'{}\n[]\n\xff\n{"id": "x", "response": null, "error": null}\n\n')
    with Checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint) == 0


def test_a_checkpoint_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(OutputUnusable) as refused:
        Checkpoint(path)
    assert str(refused.value) == (
        f"cannot use {path}: it is not a directory; name a directory that every worker can write to"
    )


def test_places_are_found_again_however_many() -> None:
    places = Places()
    keys = [digest(str(number).encode()) for number in range(5000)]
    for number, key in enumerate([0, *keys]):
        places[key] = number
    places[keys[7]] = 1 << 60
    assert [places.get(key) for key in [0, *keys]] == [0, *range(1, 8), 1 << 60, *range(9, 5001)]
    assert places.get(digest(b"another")) is None
    assert len(places) == 5001


class Away(MemoryStore):
    """A store that does not answer."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)

    async def lease(self, group: str, ask: Ask) -> Answer:
        raise StoreAway("connection refused")


async def test_a_store_of_shared_limits_that_is_away_fails_no_row(tmp_path: Path) -> None:
    async with MockServer(tier="tier-5") as mock:
        async with working(mock, tmp_path, store=Away()) as worker:
            outcomes = await worker.answer(rows(range(5)))
            assert served(mock) == 0
        why = (
            "shared_store_away: shared limits at gpt-4o-mini tier-5: connection refused; start the store, or set "
            "RATELIMIT_SHARED=off if no other program uses the key"
        )
        assert [outcome.error for outcome in outcomes] == [why] * 5
        async with working(mock, tmp_path) as worker:
            assert [outcome.error for outcome in await worker.answer(rows(range(5)))] == [None] * 5
        assert served(mock) == 5
