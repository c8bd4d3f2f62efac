"""A run from beginning to end, in virtual time: every request is answered once, or its failure is written down."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jobbing import Place, ask, batch_line

from ratelimit.errors import InputUnreadable, OutputUnusable, RequestsChanged
from ratelimit.jobs import preflight, source
from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.jobs.preflight import InputRefused
from ratelimit.jobs.records import answered
from ratelimit.jobs.source import Row, Source, Wanted
from ratelimit.testing.mock import MockServer
from ratelimit.wire.messages import Reply


async def test_everything_is_answered_once_with_its_own_answer(place: Place) -> None:
    place.write(batch_line(f"row-{number}") for number in range(150))
    async with MockServer(tier="tier-1", echo=True, latency="0.2-2", rpm=100) as mock:
        summary = await place.run(mock, rpm=100)
        assert mock.stats.answered_twice == 0
    assert place.answers() == {f"row-{number}": f"what is row-{number}?" for number in range(150)}
    assert place.records("results.errors.jsonl") == []
    assert (summary.answered, summary.failed, summary.left, summary.refused, summary.exit_code) == (150, 0, 0, 0, 0)
    assert summary.attempts == 150
    assert place.said == []


async def test_a_result_has_the_form_of_the_batch_api(place: Place) -> None:
    place.write([batch_line("a")])
    async with MockServer(tier="tier-1", echo=True) as mock:
        await place.run(mock)
    (record,) = place.records()
    assert list(record) == ["id", "custom_id", "response", "error"]
    assert record["id"].startswith("batch_req_")
    assert (record["custom_id"], record["error"]) == ("a", None)
    assert list(record["response"]) == ["status_code", "request_id", "body"]
    assert record["response"]["status_code"] == 200
    assert record["response"]["request_id"].startswith("req_")
    assert record["response"]["body"]["object"] == "chat.completion"


async def test_the_same_command_again_does_nothing(place: Place) -> None:
    place.write(batch_line(f"row-{number}") for number in range(10))
    async with MockServer(tier="tier-1", echo=True) as mock:
        await place.run(mock)
        before = place.output.read_bytes()
        summary = await place.run(mock)
        assert mock.stats.arrived == 10
    assert place.output.read_bytes() == before
    assert (summary.answered, summary.done_before, summary.left, summary.exit_code) == (0, 10, 0, 0)


async def test_more_rows_later_are_all_that_is_sent(place: Place) -> None:
    place.write(batch_line(f"row-{number}") for number in range(10))
    async with MockServer(tier="tier-1", echo=True) as mock:
        await place.run(mock)
        place.write(batch_line(f"row-{number}") for number in range(15))
        summary = await place.run(mock)
        assert mock.stats.arrived == 15
    assert len(place.answers()) == 15
    assert (summary.answered, summary.done_before) == (5, 10)


async def test_inputs_so_long_that_they_have_limits_of_their_own_are_sent_beside_others(place: Place) -> None:
    bodies = {"long": ask("word " * 128_100, "gpt-4.1-nano"), "other": ask("what?", "gpt-4o")}
    place.write(batch_line(name, body) for name, body in bodies.items())
    async with MockServer(tier="tier-4", echo=True) as mock:
        summary = await place.run(mock)
    assert (summary.answered, summary.left) == (2, 0)


async def test_a_bad_line_is_written_down_once_beside_several_lanes(place: Place) -> None:
    place.write([batch_line("a", ask("a?", "gpt-4o")), "{", batch_line("b"), batch_line("c", ask("c?", "gpt-4o"))])
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock, Options(skip_bad=True))
    assert sorted(place.answers()) == ["a", "b", "c"]
    assert list(place.errors()) == ["line-2"]
    assert summary.failed == 1


async def test_the_first_failure_is_told_in_words(place: Place) -> None:
    place.write([batch_line("a"), batch_line("b\x1b", ask("x", messages=[])), batch_line("c", ask("x", messages=[]))])
    async with MockServer(tier="tier-1") as mock:
        summary = await place.run(mock, concurrency=1)
    assert summary.lines()[3:] == [
        "failed   2: 2 empty_array",
        (
            "         first b\\x1b: the service answered 400 empty_array: Invalid 'messages': empty array. Expected an "
            "array with minimum length 1, but got an empty array instead."
        ),
    ]
    assert (summary.first_failure or "").startswith("b\x1b: the service answered 400 empty_array: ")


async def test_failures_go_to_the_errors_file_in_the_form_of_the_batch_api(place: Place) -> None:
    place.write([batch_line("good"), batch_line("bad", {"model": "gpt-4o-mini", "messages": []}), batch_line("fine")])
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock)
        assert sorted(place.answers()) == ["fine", "good"]
        (record,) = place.records("results.errors.jsonl")
        assert (record["custom_id"], record["error"], record["response"]["status_code"]) == ("bad", None, 400)
        assert record["response"]["body"]["error"]["message"].startswith("Invalid 'messages': empty array.")
        assert (summary.failed, summary.left, summary.exit_code) == (1, 0, 1)
        assert sum(summary.failures.values()) == 1

        again = await place.run(mock)
        assert (again.answered, again.failed, again.failed_before, again.exit_code) == (0, 0, 1, 1)
        assert "failed   1 in earlier runs; --retry-failed sends them again" in again.lines()

        place.write([batch_line("good"), batch_line("bad"), batch_line("fine")])
        mended = await place.run(mock, retry_failed=True)
    assert (mended.answered, mended.failed_before, mended.exit_code) == (1, 0, 0)
    assert sorted(place.answers()) == ["bad", "fine", "good"]
    assert place.records("results.errors.jsonl") == []
    assert place.said == []


SHAPE = 'a line is {"custom_id": ..., "method": "POST", "url": ..., "body": {...}} or a bare body'
BAD = [
    (batch_line("a"), None),
    ("nonsense", "the line is not JSON"),
    (batch_line("a"), "the custom_id a stands on line 1 already; each is its own"),
    (batch_line("b", ask("hi", "gpt-17")), 'no table has limits for the model "gpt-17"'),
    (batch_line("c\x1b[2J", ask("hi", max_tokens=20_000)), "the request asks for up to 20,000 tokens of output"),
    (batch_line("d", {"model": "gpt-4o-mini", "messages": 5, "stream": True}), "the body asks for a stream"),
    (batch_line("e", ask("word " * 210_000)), "the 210,00"),
    (batch_line("f"), None),
]


async def test_what_cannot_be_sent_is_found_before_anything_is(place: Place) -> None:
    place.write(line for line, _ in BAD)
    async with MockServer(tier="tier-1", echo=True) as mock:
        with pytest.raises(InputRefused) as caught:
            await place.run(mock)
        assert mock.stats.arrived == 0
    head, *told = str(caught.value).splitlines()
    assert head == (
        f"6 of 8 lines of {place.requests} cannot be sent, and nothing was; mend them, or use --skip-bad to have them "
        f"in the errors file and send the others"
    )
    expected = [(number, why) for number, (_, why) in enumerate(BAD, 1) if why]
    assert len(told) == len(expected)
    for line, (number, why) in zip(told, expected, strict=True):
        assert line.startswith(f"line {number}: {why}")
        assert line.isprintable()
    assert place.records() == []


@pytest.mark.parametrize("check", [True, False])
async def test_bad_lines_as_rows_of_the_errors_file(place: Place, check: bool) -> None:
    place.write(line for line, _ in BAD)
    options = Options(skip_bad=True, check=check)
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock, options)
        again = await place.run(mock, options)
        assert mock.stats.arrived == 2
    assert place.answers() == {"a": "what is a?", "f": "what is f?"}
    errors = place.errors()
    assert sorted(errors) == ["b", "c\x1b[2J", "d", "e", "line-2", "line-3"]
    assert errors["line-3"].startswith("the custom_id")
    assert (summary.answered, summary.failed, summary.exit_code) == (2, 6, 1)
    assert (again.answered, again.failed, again.failed_before, again.exit_code) == (0, 0, 6, 1)


async def test_only_the_first_lines_at_fault_are_told(place: Place) -> None:
    place.write(["nonsense"] * 50)
    async with MockServer(tier="tier-1") as mock:
        with pytest.raises(InputRefused) as caught:
            await place.run(mock)
    told = str(caught.value).splitlines()
    assert len(told) == 22
    assert told[-1] == "and 30 more"


async def test_what_is_wrong_with_the_twenty_first_is_known_too(place: Place) -> None:
    bad = [batch_line(f"bad-{n}", ask("hi", "gpt-17")) for n in range(30)]
    place.write([batch_line("a"), *bad, batch_line("a"), "what?", batch_line("b")])
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock, Options(skip_bad=True, limit=2))  # of what is sent
    assert (summary.answered, summary.failed, summary.left) == (2, 32, 0)
    errors = place.errors()
    assert all(errors[f"bad-{n}"].startswith('no table has limits for the model "gpt-17"') for n in range(30))
    assert errors["line-32"].startswith("the custom_id a stands on line 1 already; each is its own")
    assert errors["line-33"].startswith("the line is not JSON")


async def test_no_more_is_read_of_a_file_that_will_be_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "MANY", 25)
    place.write([*(batch_line(f"row-{n}") for n in range(50)), *["what?"] * 100])
    async with MockServer(tier="tier-1") as mock:
        with pytest.raises(InputRefused) as caught:
            await place.run(mock)
    head, *_, last = str(caught.value).splitlines()
    assert head == (
        f"25 of the first 75 lines of {place.requests} cannot be sent, and nothing was; mend them, or use --skip-bad "
        "to have them in the errors file and send the others"
    )
    assert last == "and 5 more at least"


@pytest.mark.parametrize(("good", "refused"), [(30, False), (20, True)])
async def test_most_of_a_file_of_requests_are_requests(
    place: Place, monkeypatch: pytest.MonkeyPatch, good: int, refused: bool
) -> None:
    """Of models that nobody knows there may be more: those are requests, for another tier."""
    monkeypatch.setattr(source, "MANY", 25)
    strange = [batch_line(f"strange-{n}", ask("hi", "gpt-17")) for n in range(60 if refused else 0)]
    other = [batch_line(f"other-{n}", ask("hi", "gpt-17")) for n in range(60)]
    place.write([*(batch_line(f"row-{n}") for n in range(good)), *["what?", "{}"] * 15, *other, *strange])
    async with MockServer(tier="tier-1", echo=True) as mock:
        if refused:
            with pytest.raises(InputUnreadable) as caught:
                await place.run(mock, Options(skip_bad=True))
            assert str(caught.value) == (
                f"cannot read {place.requests}: 25 of its first 45 lines are no requests; line 21: the line is not "
                f"JSON: JSON is malformed: invalid character (byte 0); {SHAPE}"
            )
        else:
            summary = await place.run(mock, Options(skip_bad=True))
            assert (summary.answered, summary.failed, summary.left) == (30, 90, 0)
        assert mock.stats.arrived == (0 if refused else 30)


@pytest.mark.parametrize("options", [Options(check=False), Options(check=False, skip_bad=True)])
async def test_nothing_is_sent_from_a_file_of_anything_else_that_nobody_looks_through(
    place: Place, options: Options
) -> None:
    place.write(["1,hello"] * 12_000)
    async with MockServer(tier="tier-1") as mock:
        with pytest.raises(InputUnreadable, match="none of its first 10,000 lines is a request"):
            await place.run(mock, options)
        assert mock.stats.arrived == 0
    assert place.records() == place.records("results.errors.jsonl") == []


class Appending(Watcher):
    """Appends to the input of a run that has begun to send."""

    def __init__(self, place: Place, lines: list[str]) -> None:
        self._place, self._lines = place, lines

    async def watch(self, run: Watched, client: Sending) -> None:
        while not client.count.attempts:  # noqa: ASYNC110 - nothing tells of attempts but the count
            await asyncio.sleep(0.01)
        with self._place.requests.open("a") as file:
            file.writelines(f"{line}\n" for line in self._lines)


@pytest.mark.parametrize("models", [["gpt-4o-mini"], ["gpt-4o-mini", "gpt-4o"]], ids=["one lane", "two"])
@pytest.mark.parametrize("known", [False, True])
async def test_what_is_appended_during_a_run_is_for_the_next(place: Place, models: list[str], *, known: bool) -> None:
    """Nobody has looked at it: it may be bad, or stand under an id that is on its way."""
    rows = {f"row-{n}": ask(f"what is row-{n}?", models[n % len(models)]) for n in range(60)}
    later = {f"later-{n}": ask(f"what is later-{n}?", models[n % len(models)]) for n in range(4)}
    place.write(batch_line(name, body) for name, body in rows.items())
    appended = [batch_line("row-59", rows["row-59"]), *(batch_line(name, body) for name, body in later.items())]
    async with MockServer(tier="tier-5", echo=True, latency="5") as mock:
        if known:  # and it is not looked through again
            assert (await place.run(mock, Options(limit=2))).answered == 2
        summary = await place.run(mock, Options(concurrency=10), watcher=Appending(place, appended))
        assert (summary.answered + summary.done_before, summary.left, summary.exit_code) == (60, 0, 3)
        assert place.answers().keys() == rows.keys()
        with pytest.raises(InputRefused, match="the custom_id row-59 stands on line 60 already"):
            await place.run(mock)
        again = await place.run(mock, Options(skip_bad=True))
        assert (again.answered, again.failed) == (4, 1)
    assert place.answers().keys() == rows.keys() | later.keys()


async def test_a_changed_request_is_refused_unless_forced(place: Place) -> None:
    place.write([batch_line("a"), batch_line("b"), batch_line("c")])
    async with MockServer(tier="tier-1", echo=True) as mock:
        await place.run(mock)
        place.write([batch_line("a"), batch_line("b", ask("else")), batch_line("c", ask("else")), batch_line("d")])
        with pytest.raises(RequestsChanged) as caught:
            await place.run(mock)
        assert mock.stats.arrived == 3
        assert str(caught.value) == (
            "2 requests have changed since they were sent, the first on line 2 (b); use --force to keep the answers "
            "there are, or choose another output"
        )
        summary = await place.run(mock, Options(force=True))
    assert summary.answered == 1
    assert place.answers()["b"] == "what is b?"


async def test_other_limits_look_through_the_input_anew(place: Place) -> None:
    place.write([batch_line("a", ask("word " * 3000))])
    async with MockServer(tier="tier-1", echo=True) as mock:
        await place.run(mock)
        place.write([batch_line("b", ask("word " * 3000))])
        with pytest.raises(InputRefused, match=r"needs 3,\d+ of TPM, which allows at most 1,000"):
            await place.run(mock, tpm=1000)


async def test_the_output_is_not_to_be_the_input(place: Place) -> None:
    place.write([batch_line("a")])
    before = place.requests.read_bytes()
    async with MockServer(tier="tier-1") as mock:
        for name in ("results.jsonl", "results.errors.jsonl", "results.journal.jsonl"):
            (place.path / name).unlink(missing_ok=True)
            (place.path / name).symlink_to(place.requests)
            with pytest.raises(OutputUnusable) as caught:
                await place.run(mock)
            (place.path / name).unlink()
            told = place.path / name
            assert str(caught.value) == f"cannot use {told}: it is the input; choose another output"
    assert place.requests.read_bytes() == before


async def test_a_report_that_has_no_place_is_known_before_the_work(place: Place) -> None:
    place.write([batch_line("a")])
    async with MockServer(tier="tier-1") as mock:
        with pytest.raises(OutputUnusable) as caught:
            await place.run(mock, report=place.path / "no" / "report.html")
        assert mock.stats.arrived == 0
        assert str(caught.value) == (
            f"cannot use {place.path / 'no' / 'report.html'}: there is no directory {place.path / 'no'}; "
            "create it first"
        )
        (place.path / "taken").mkdir()
        summary = await place.run(mock, report=place.path / "taken")
    assert summary.exit_code == 0
    assert place.said == [f"cannot use {place.path / 'taken'}: Is a directory; choose another place for the report"]


async def test_never_more_rows_than_may_be_in_flight(place: Place) -> None:
    class Look(Watcher):
        most = 0

        async def watch(self, run: Watched, client: Sending) -> None:
            while True:
                self.most = max(self.most, len(vars(run)["_flights"]))
                await asyncio.sleep(0.01)

    place.write(batch_line(f"row-{number}", ask("hi", ["gpt-4o-mini", "gpt-4o"][number > 20])) for number in range(80))
    look = Look()
    async with MockServer(tier="tier-1", echo=True, latency="0.2-1") as mock:
        await place.run(mock, Options(concurrency=7), watcher=look)
        assert mock.stats.most_in_flight <= 7
    assert look.most == 7
    assert len(place.records()) == 80


async def test_two_models_in_a_sorted_file_both_go_at_full_speed(place: Place) -> None:
    """The second would wait for the first to end, or for the places that its rows have taken."""
    models: list[dict[str, Any]] = [ask("hi", "gpt-4o-mini"), ask("hi", "gpt-4o")]
    place.write(batch_line(f"row-{number}", models[number >= 150]) for number in range(300))
    async with MockServer(tier="tier-1", echo=True, latency="0.5", rpm=100) as mock:
        summary = await place.run(mock, Options(concurrency=20))
    assert summary.exit_code == 0
    assert 30 < summary.seconds < 33  # a hundred at once and fifty more at a hundred a minute, both


async def test_a_model_that_had_nothing_left_is_sent_again_beside_others(place: Place) -> None:
    """The second run is told of the first that two lanes have rows left; the failed ones are the third's."""
    models = ["gpt-4o"] * 2 + ["gpt-4o-mini", "gpt-4.1-mini"] * 15
    place.write(
        batch_line(f"row-{number}", ask("hi", model) | ({"messages": []} if model == "gpt-4o" else {}))
        for number, model in enumerate(models)
    )
    async with MockServer(tier="tier-1", echo=True) as mock:
        first = await place.run(mock, Options(limit=12))
        again = await place.run(mock, retry_failed=True)
        assert mock.stats.arrived == 34
    assert (first.answered, first.failed, first.left) == (10, 2, 20)
    assert (again.answered, again.failed, again.left) == (20, 2, 0)
    assert sorted(place.errors()) == ["row-0", "row-1"]
    assert len(place.answers()) == 30


async def test_a_reply_on_several_lines_or_with_a_broken_letter_is_one_line_of_utf_8(place: Place) -> None:
    for body in (b'{"a":\r\n [1,\n2], "b":\r3}', b'{"a":\r[1,2]}', b'{"a":[1,2],"b":3,"c":"\xff\\u2028"}'):
        line = answered(Row(1, "x"), Reply(200, {}, body))
        assert b"\n" not in line
        assert b"\r" not in line
        assert json.loads(line.decode())["response"]["body"]["a"] == [1, 2]


async def test_an_input_that_cannot_be_read_leaves_no_files_behind(place: Place) -> None:
    async with MockServer(tier="tier-1") as mock:
        with pytest.raises(InputUnreadable):
            await place.run(mock, source=Source(str(place.path / "missing.jsonl")))
    assert list(place.path.iterdir()) == []


class Changing(Watcher):
    """Does something to the input once a few rows are answered."""

    def __init__(self, change: Callable[[], object]) -> None:
        self._change = change

    async def watch(self, run: Watched, client: Sending) -> None:
        await asyncio.sleep(2.5)  # of a second for each three rows
        assert run.tally.answers >= 3
        self._change()


@pytest.mark.parametrize("how", ["cut at a line", "cut in a line", "written anew", "appended to"])
async def test_an_input_that_changes_while_it_is_read_is_not_taken_for_done(place: Place, how: str) -> None:
    asked = [batch_line(f"row-{number}", ask("x" * 9_000)) for number in range(40)]
    place.write(asked)
    whole = place.requests.read_bytes()

    def change() -> None:
        if how.startswith("cut"):
            os.truncate(place.requests, 3 * (len(asked[0]) + 1) + (how == "cut in a line"))
        elif how == "written anew":
            other = place.path / "other.jsonl"
            other.write_bytes(whole + batch_line("new").encode())
            other.replace(place.requests)
        else:
            with place.requests.open("a") as file:
                file.write(batch_line("new"))

    async with MockServer(tier="tier-1", latency="1", echo=True) as mock:
        summary = await place.run(mock, Options(concurrency=3), watcher=Changing(change))
        assert (summary.failed, summary.exit_code) == (0, 3)
        assert summary.stopped == (
            f"{place.requests} has changed while it was read; run again: it is looked through anew, and what is left "
            f"is sent"
        )
        if how.startswith("cut"):
            place.requests.write_bytes(whole)
        again = await place.run(mock)
        assert (again.failed, again.left, again.exit_code) == (0, 0, 0)
        assert len(place.answers()) == 40 + (not how.startswith("cut"))
        assert mock.stats.answered_twice == 0


async def test_whatever_goes_wrong_with_a_pipe_ends_the_run(place: Place) -> None:
    class Broken(Source):
        def rows(self, wanted: Wanted | None = None) -> Iterator[Row]:
            yield from ()
            raise ZeroDivisionError

    async with MockServer(tier="tier-1") as mock:
        with pytest.raises(ZeroDivisionError):
            await place.run(mock, source=Broken("-"))
