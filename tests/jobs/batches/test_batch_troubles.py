"""What goes wrong at the service: recovered from, or said clearly; nothing is lost either way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import msgspec
import pytest
from batching import Batching, batches, codes, files, spoil, statuses
from jobbing import ask, batch_line

from ratelimit.errors import AlreadyRunning, KeyRejected, OutputUnusable
from ratelimit.jobs.batches.api import Batch, Problem
from ratelimit.jobs.batches.following import Places
from ratelimit.jobs.batches.ledger import ledger_path, read
from ratelimit.jobs.batches.queue import Queue, told_limit
from ratelimit.jobs.batches.rejection import queue_full, to_blame
from ratelimit.jobs.batches.showing import Shown
from ratelimit.jobs.budget import Options
from ratelimit.testing.mock import MockServer, faults
from ratelimit.testing.mock.refusals import Problem as Refusal


async def test_a_500_on_every_third_call(place: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ask_for(60, words=25)
    async with MockServer(echo=True, batch_queue=2_000) as mock:
        spoil(monkeypatch, mock, lambda number, *_: None if number % 3 else "500")
        summary = await place.batch(mock, tiers_file=place.queue_of(2_000))
        assert sum(each["request_counts"]["completed"] for each in batches(mock)) == 60
        assert files(mock) == []
    assert summary.exit_code == 0
    place.expect_everything(60, words=25)


async def test_an_outage_is_said_and_outlasted(place: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ask_for(3)
    async with MockServer(echo=True) as mock:
        spoil(monkeypatch, mock, lambda number, *_: "503" if number < 9 else None)
        assert (await place.batch(mock)).exit_code == 0
    assert [said for said in place.said if "asked again" in said] == [
        (
            "the Batch API does not answer as it should, and is asked again: the service answered 503 server_error: "
            "The engine is currently overloaded, please try again later"
        )
    ]


async def test_a_creation_that_nobody_heard_of_is_not_repeated(
    place: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.ask_for(3)
    async with MockServer(echo=True) as mock:
        spoil(monkeypatch, mock, lambda _, method, path: 700.0 if (method, path) == ("POST", "batches") else None)
        assert (await place.batch(mock)).exit_code == 0
        assert len(batches(mock)) == 1
    place.expect_everything(3)


async def test_an_invalid_key(place: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ask_for(3)
    async with MockServer(echo=True) as mock:
        spoil(
            monkeypatch, mock, lambda _, method, path: "invalid_key" if (method, path) == ("POST", "batches") else None
        )
        summary = await place.batch(mock)
        assert summary.exit_code == KeyRejected.exit_code
        assert summary.stopped is not None
        assert summary.stopped.startswith("the service rejected the API key (401): ")
        monkeypatch.undo()
        assert (await place.batch(mock)).exit_code == 0
        assert len(batches(mock)) == 1
    place.expect_everything(3)


async def test_a_queue_that_others_have_filled_is_tried_less_and_less_often(place: Batching) -> None:
    place.ask_for(20, words=25)
    async with MockServer(echo=True, batch_queue=1_000) as mock:
        mock._batches._enqueued["org-mock", "gpt-4o-mini"] = 1_000
        run = asyncio.create_task(place.batch(mock, tiers_file=place.queue_of(1_000)))
        await asyncio.sleep(1_000)
        # Those that filled the queue at first, and then one after 60, 120, 240 and 480 seconds.
        first = len([about for about in batches(mock) if about["created_at"] == batches(mock)[0]["created_at"]])
        assert len(batches(mock)) == first + 4
        mock._batches._enqueued.clear()
        assert (await run).exit_code == 0
    place.expect_everything(20, words=25)


async def test_a_late_release_is_waited_for(place: Batching) -> None:
    place.ask_for(40, words=25)
    async with MockServer(echo=True, batch_queue=1_000, batch_release_lag=500) as mock:
        assert (await place.batch(mock, tiers_file=place.queue_of(1_000))).exit_code == 0
        assert codes(mock).keys() == {"token_limit_exceeded"}
        assert codes(mock).total() < 60
    assert place.said.count("the batch queue of gpt-4o-mini is full at the service; trying again in 60 s") >= 1
    place.expect_everything(40, words=25)


async def test_a_limit_lower_than_the_tables_is_learnt_from_the_refusal(place: Batching) -> None:
    place.ask_for(40, words=25)
    async with MockServer(echo=True, batch_queue=1_000) as mock:
        assert (await place.batch(mock)).exit_code == 0
        assert codes(mock) == {"token_limit_exceeded": 1}
    assert place.said[0] == "the batch queue of gpt-4o-mini holds 1,000 tokens, not 2,000,000: going by that"
    place.expect_everything(40, words=25)


async def test_rows_that_a_batch_has_not_come_to_are_enqueued_again(place: Batching) -> None:
    place.ask_for(20)
    async with MockServer(echo=True, batch_speed=15 / 86_400) as mock:
        assert (await place.batch(mock)).exit_code == 0
        assert statuses(mock) == {"expired": 1, "completed": 1}
        assert sum(each["request_counts"]["completed"] for each in batches(mock)) == 20
    place.expect_everything(20)


async def test_a_batch_that_somebody_cancels(place: Batching) -> None:
    place.ask_for(20)
    async with MockServer(echo=True, batch_speed=0.1) as mock:
        run = asyncio.create_task(place.batch(mock))
        await asyncio.sleep(60)
        mock._batches.cancel(mock._batches._batches[batches(mock)[0]["id"]].account, batches(mock)[0]["id"])
        assert (await run).exit_code == 0
        assert statuses(mock) == {"cancelled": 1, "completed": 1}
        assert sum(each["request_counts"]["completed"] for each in batches(mock)) == 20
    place.expect_everything(20)


async def test_a_row_that_fails_is_in_the_errors_file_and_the_others_are_not(place: Batching) -> None:
    place.write([batch_line("good", ask("good")), batch_line("bad", ask("bad", max_completion_tokens=100_000))])
    async with MockServer(echo=True) as mock:
        summary = await place.batch(mock)
    assert summary.exit_code == 1
    assert place.answers() == {"good": "good"}
    assert list(place.errors()) == ["bad"]


@pytest.mark.parametrize(("kept", "again"), [(0.5, True), (0.0, True), (1.0, False)])
async def test_an_output_file_that_ends_in_mid_line(place: Batching, kept: float, *, again: bool) -> None:
    """What is whole is taken; what is missing is looked for, said, and enqueued again."""
    place.ask_for(20)
    async with MockServer(echo=True) as mock:
        run = asyncio.create_task(place.batch(mock))
        await asyncio.sleep(4.5)  # it is over, and is looked at after 5 s
        stored = next(each for each in mock._files._stored.values() if each.about["purpose"] == "batch_output")
        whole = stored.path.read_bytes()
        stored.path.write_bytes(whole[: int(len(whole) * kept)])
        assert (await run).exit_code == 0
        assert len(batches(mock)) == (2 if again else 1)
    assert any("its files hold" in said for said in place.said) == again
    place.expect_everything(20)


async def test_a_file_that_is_gone(place: Batching) -> None:
    place.ask_for(4)
    async with MockServer(echo=True) as mock:
        run = asyncio.create_task(place.batch(mock))
        await asyncio.sleep(4.5)  # it is over, and is looked at after 5 s
        stored = next(each for each in mock._files._stored.values() if each.about["purpose"] == "batch_output")
        mock._files.delete(stored.organization, stored.about["id"])
        assert (await run).exit_code == 0
    gone = f"file {stored.about['id']} of batch batch_{1:024x} is gone, and what it answered with it"
    assert gone in place.said
    place.expect_everything(4)


def told_twice(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[0], *lines[2:]]


def told_of_another(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"row-1"', b'"row-99"'), *lines[2:]]


def told_of_one_more(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[0], lines[1].replace(b'"row-1"', b'"row-99"')]


@pytest.mark.parametrize(("lie", "again"), [(told_twice, True), (told_of_another, True), (told_of_one_more, False)])
async def test_an_output_file_that_names_a_row_twice_or_one_that_nobody_sent(
    place: Batching, lie: Callable[[list[bytes]], list[bytes]], *, again: bool
) -> None:
    """What a file says of other rows makes up for none that it does not name; and an error beside an answer is none."""
    place.ask_for(4)
    async with MockServer(echo=True) as mock:
        run = asyncio.create_task(place.batch(mock))
        await asyncio.sleep(4.5)  # it is over, and is looked at after 5 s
        stored = next(each for each in mock._files._stored.values() if each.about["purpose"] == "batch_output")
        lines = sorted(stored.path.read_bytes().splitlines(), key=lambda line: json.loads(line)["custom_id"])
        stored.path.write_bytes(b"\n".join([*lie(lines), b""]))
        beside = mock._files.new(stored.organization, "errors.jsonl", "batch_output")
        refused = {"status_code": 400, "request_id": "r", "body": {"error": {"message": "no", "code": "no"}}}
        beside.path.write_text(json.dumps({"custom_id": "row-0", "response": refused, "error": None}) + "\n")
        batches(mock)[0]["error_file_id"] = mock._files.keep(beside)
        assert (await run).exit_code == 0
        assert len(batches(mock)) == (2 if again else 1)
    short = (
        f"batch batch_{1:024x} counts 4 results, but its files hold 3; "
        f"the files are left at the service, and what is missing is enqueued again"
    )
    assert place.said == [short] * again
    assert place.errors() == {}
    place.expect_everything(4)


@pytest.mark.parametrize("struck", [("GET", "batches/"), ("GET", "files/"), ("DELETE", "files/")])
async def test_a_key_that_is_revoked_meanwhile(
    place: Batching, monkeypatch: pytest.MonkeyPatch, struck: tuple[str, str]
) -> None:
    place.ask_for(3)
    async with MockServer(echo=True) as mock:
        with monkeypatch.context() as patch:
            spoil(
                patch,
                mock,
                lambda _, method, path: "invalid_key" if method == struck[0] and path.startswith(struck[1]) else None,
            )
            summary = await place.batch(mock)
        assert summary.exit_code == KeyRejected.exit_code
        assert (await place.batch(mock)).exit_code == 0
        assert sum(each["request_counts"]["completed"] for each in batches(mock)) == 3
        assert files(mock) == []
    place.expect_everything(3)


async def test_files_that_may_not_be_deleted_stop_nothing(place: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ask_for(60, words=25)
    monkeypatch.setitem(faults.PROBLEMS, "kept", Refusal(400, "This file is kept.", "invalid_request_error"))
    async with MockServer(echo=True, batch_queue=2_000) as mock:
        with monkeypatch.context() as patch:
            spoil(patch, mock, lambda _, method, path: "kept" if method == "DELETE" else None)
            assert (await place.batch(mock, tiers_file=place.queue_of(2_000))).exit_code == 0
        made = len(batches(mock))
        why = "the service answered 400 invalid_request_error: This file is kept."
        assert sorted(place.said) == sorted(
            [
                *(f"files of batch batch_{n + 1:024x} are left at the service for now: {why}" for n in range(made)),
                f"files of this job may be left at the service: {why}",
            ]
        )
        assert (await place.batch(mock, tiers_file=place.queue_of(2_000))).exit_code == 0
        assert files(mock) == []
    place.expect_everything(60, words=25)


async def test_a_job_that_is_cancelled_while_it_runs_and_after_it_has_ended(place: Batching) -> None:
    place.ask_for(20)
    async with MockServer(echo=True, batch_speed=0.1) as mock:
        run = asyncio.create_task(place.batch(mock))
        await asyncio.sleep(60)
        assert [(each.rows, each.ended) for each in read(place.output)] == [(20, None)]
        with pytest.raises(AlreadyRunning) as caught:
            await place.batch(mock, cancelling=True)
        assert str(caught.value) == (
            f"another run is writing {place.output}; wait for it to end, or choose another output"
        )
        assert (await run).exit_code == 0
        assert (await place.batch(mock, cancelling=True)).exit_code == 0
        assert statuses(mock) == {"completed": 1}
    place.expect_everything(20)


def test_a_batch_whose_figures_are_not_known_is_still_a_batch() -> None:
    counts = b'{"total":null,"completed":2.0,"failed":null}'
    told = b'{"id":"b","status":"completed","request_counts":%b,"metadata":{"n":1}}' % counts
    assert msgspec.json.decode(told, type=Batch).counts.done == 2
    assert msgspec.json.decode(b'{"id":"b","status":"new","request_counts":null}', type=Batch).counts.done == 0


@pytest.mark.parametrize("damage", [b"{oops", b"", b"{}"])
async def test_a_damaged_ledger_is_not_passed_over(place: Batching, damage: bytes) -> None:
    place.ask_for(4)
    async with MockServer(echo=True) as mock:
        await place.batch(mock)
        path = ledger_path(place.output)
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
        with pytest.raises(OutputUnusable) as caught:
            await place.batch(mock)
    assert str(caught.value) == (
        f"cannot use {path}: line 2 is damaged; cancel the job's batches at the vendor's site and move the file away, "
        f"or repair that line, then run again"
    )


async def test_cancelling_keeps_what_was_answered(place: Batching) -> None:
    place.ask_for(20)
    async with MockServer(echo=True, batch_speed=0.1) as mock:
        summary = await place.batch(mock, Options(deadline=60))
        assert summary.stopped == "the deadline of 1 min 00 s has passed; run again for the rest"
        assert place.said == ["1 batch under way at the service; the same command collects the answers"]
        await asyncio.sleep(40)
        await place.batch(mock, cancelling=True)
        assert statuses(mock) == {"cancelled": 1}
        paid = batches(mock)[0]["request_counts"]["completed"]
        assert 0 < paid < 20
        assert len(place.records()) == paid
        assert (await place.batch(mock)).exit_code == 0
    place.expect_everything(20)
    ended = [json.loads(line).get("ended") for line in ledger_path(place.output).read_text().splitlines()]
    assert list(filter(None, ended)) == ["cancelled", "completed"]


async def test_an_uploaded_file_that_is_gone_before_its_batch_is_created(
    place: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.ask_for(4)
    async with MockServer(echo=True) as mock:

        def lose(number: int, method: str, path: str) -> None:
            if (number, method, path) == (2, "POST", "batches"):
                mock._files._stored.clear()

        spoil(monkeypatch, mock, lose)
        assert (await place.batch(mock)).exit_code == 0
        assert len(batches(mock)) == 1
    assert place.said == [
        (
            f"a batch was not created, and its file is uploaded again: the service answered 404 invalid_request_error: "
            f"No such File object: file-{1:024x}"
        )
    ]
    place.expect_everything(4)


async def test_a_model_that_the_service_does_not_know(place: Batching) -> None:
    place.ask_for(2)
    async with MockServer(echo=True, models=["gpt-4.1-mini"]) as mock:
        summary = await place.batch(mock)
        assert len(batches(mock)) == 1
    assert (summary.exit_code, summary.failures) == (1, {"model_not_found": 2})
    assert place.said == [f"batch batch_{1:024x} has failed validation; 2 of its rows are bad"]
    assert place.errors() == dict.fromkeys(("row-0", "row-1"), "The provided model is not supported by the Batch API.")


def test_a_queue_that_holds_nothing_is_shown_as_full() -> None:
    limit = told_limit("Enqueued token limit reached for m in organization o. Limit: 0 enqueued tokens.")
    assert limit == 0
    (lane,) = Shown(lambda: [Queue("m", limit)], None).snapshot()
    assert lane.limits[0].used_last_minute == 1


def test_rows_are_taken_out_of_a_batch_and_the_others_stay() -> None:
    places = Places()
    for each in ((7, 0, 4), (8, 1, 0), (9, 0, 5)):
        places.add(*each)
    assert places.take({8, 99}) == [(8, 1, 0)]
    assert list(places) == [(7, 0, 4), (9, 0, 5)]


def test_only_the_rows_that_are_named_are_to_blame() -> None:
    keys = [11, 12, 13]
    bad = Problem("invalid_json_line", "no", 2)
    assert to_blame([bad], keys) == {12: bad}
    assert to_blame([Problem("invalid_json_line", "no", 9)], keys).keys() == set(keys)
    assert to_blame([bad, Problem("empty_file", "no")], keys).keys() == set(keys)
    assert to_blame([], keys).keys() == set(keys)
    assert not queue_full([])
    assert not queue_full([Problem("token_limit_exceeded"), bad])
    assert queue_full([Problem("token_limit_exceeded"), Problem("request_limit_exceeded")])
