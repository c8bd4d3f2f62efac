"""Figures are said so that they mean something, in runs of a moment and of days, of no row and of millions."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from jobbing import Place, ask
from rich.console import Console

from ratelimit.cli import main
from ratelimit.jobs.budget import Budget, Options
from ratelimit.jobs.dashboard import state
from ratelimit.jobs.exposition import _rows
from ratelimit.jobs.figures import amount, counted, duration, money, per_minute, price
from ratelimit.jobs.preflight import Findings
from ratelimit.jobs.progress import line, panel
from ratelimit.jobs.report import _short, page
from ratelimit.jobs.standing import Standing
from ratelimit.jobs.summary import Summary, summarise
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import load
from ratelimit.testing.mock import MockServer
from ratelimit.wire.messages import Reply
from ratelimit.wire.sender import Count


def test_durations_as_people_say_them() -> None:
    given = (0, 0.001, 0.04, 0.05, 2.0, 59.94, 59.96, 60, 3599.6, 3600, 86_399, 86_400, 360_000, 1e9)
    assert [duration(seconds) for seconds in given] == [
        "0 s",
        "under 0.1 s",
        "under 0.1 s",
        "0.1 s",
        "2 s",
        "59.9 s",
        "1 min 00 s",
        "1 min 00 s",
        "1 h 00 min",
        "1 h 00 min",
        "23 h 59 min",
        "1 d 0 h",
        "4 d 4 h",
        "11,574 d 1 h",
    ]


def test_money_as_people_say_it() -> None:
    given = (0, 1e-6, 0.000049, 0.00005, 0.00123, 0.9999, 0.99996, 12.345, 1e6)
    said = ["0", "under 0.0001", "under 0.0001", "0.0001", "0.0012", "0.9999", "1.00", "12.35", "1,000,000.00"]
    assert [amount(dollars) for dollars in given] == said
    assert [money(dollars) for dollars in given[:3]] == ["$0", "under $0.0001", "under $0.0001"]
    assert [price(dollars) for dollars in (1e-6, 0.01, 1, 2.5, 1e6)] == [
        "$0.000001",
        "$0.01",
        "$1",
        "$2.5",
        "$1,000,000",
    ]


def test_how_many_there_are() -> None:
    said = [counted(count, what) for count, what in ((0, "row"), (1, "batch"), (2, "batch"), (1000, "answer"))]
    assert said == ["0 rows", "1 batch", "2 batches", "1,000 answers"]


def test_speeds_as_people_say_them() -> None:
    given = (0, 1 / 360_000, 0.001, 0.1, 0.9, 10_000)
    assert [per_minute(rate) for rate in given] == ["0", "under 0.1", "0.1", "6.0", "54", "600,000"]


def summary(rows: int, seconds: float, cost: float) -> Summary:
    tally = Tally(load())
    tally.start(Findings(rows=rows), 0.0)
    tally.answers, tally.cost = rows, cost
    tally.end(seconds)
    return summarise(tally, Count(), (), None, in_doubt=0, failed_before=0, interrupted=False)


@pytest.mark.parametrize(
    ("rows", "seconds", "cost", "first", "spent"),
    [
        (0, 0.0004, 0, "answered 0 in under 0.1 s", "$0"),
        (1, 0.001, 1e-6, "answered 1 in under 0.1 s", "under $0.0001"),
        (900, 0.9, 0.25, "answered 900 in 0.9 s", "$0.2500"),
        (60, 3.0, 0.25, "answered 60 in 3 s (1,200 a minute)", "$0.2500"),
        (1, 360_000, 3, "answered 1 in 4 d 4 h (under 0.1 a minute)", "$3.00"),
        (10_000_000, 360_000, 1e6, "answered 10,000,000 in 4 d 4 h (1,667 a minute)", "$1,000,000.00"),
    ],
)
def test_what_a_run_came_to(rows: int, seconds: float, cost: float, first: str, spent: str) -> None:
    told = summary(rows, seconds, cost)
    assert told.lines()[:2] == [first, f"tokens   0 in, 0 out, {spent}"]
    text = page(told, Tally(load()))
    assert f"<dt>time</dt><dd>{duration(seconds)}</dd>" in text
    assert f"<dt>cost</dt><dd>{spent}</dd>" in text


def test_what_stands_at_a_plot() -> None:
    given = (0.25, 999.4, 999.9, 1234.0, 999_999.0, 30_000_000.0, 2e9)
    assert [_short(value) for value in given] == ["0.25", "999", "1 k", "1.23 k", "1 M", "30 M", "2 G"]


def test_one_answer_is_no_answers() -> None:
    told = replace(summary(1, 5, 0.5), unpriced=1, batched=1, saved=1e-6).lines()
    assert told[1].endswith("(1 answer of models without a price)")
    assert told[3] == "routes   1 answer by the Batch API; under $0.0001 saved"


def standing(*, rows: int | None, done: int, rate: float | None, cost: float) -> Standing:
    return Standing(
        looked_at=0,
        begun=True,
        ended=False,
        stopped=None,
        seconds=0.001,
        total=rows,
        done=done,
        answered=done,
        failed=0,
        left=None if rows is None else rows - done,
        rate=rate,
        to_go=None,
        retried=0,
        refused=0,
        input_tokens=0,
        output_tokens=0,
        cost=cost,
        down=False,
        failures={},
        lanes=(),
        beside="",
    )


def test_a_run_at_its_very_beginning() -> None:
    run = standing(rows=None, done=1, rate=None, cost=1e-6)
    assert line(run) == (
        "1 answered, 0 failed, limited by nothing of ours, 0 in flight, 0 retries, 0 refused, under $0.0001"
    )
    facts = json.loads(state(run, Tally(load())))["facts"]
    assert (facts["cost"], facts["time"], "a minute" in facts) == ("under $0.0001", "under 0.1 s", False)
    assert [each for each in _rows(run).splitlines() if "left" in each] == []


def test_all_but_one_of_ten_million_rows_are_not_all_of_them() -> None:
    run = standing(rows=10_000_000, done=9_999_999, rate=10_000, cost=1e6)
    console = Console(file=io.StringIO(), width=110, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(panel(run))
    shown = captured.get()
    assert " 99%" in shown
    assert "9,999,999 of 10,000,000 answered  0 failed  1 left  600,000 a minute" in shown
    assert "$1,000,000.00 so far  about $1,000,000.10 in all" in shown


def test_the_first_moment_tells_no_speed() -> None:
    tally = Tally(load())
    tally.start(Findings(rows=3, lanes={"gpt-4o-mini": (3, 0.0)}), 0.0)
    tally.answered("gpt-4o-mini", Reply(200, {}, b"{}"), 0.0, 0.004)
    assert (tally.rate(0.005), tally.to_go(0.005)) == (None, None)
    assert (tally.rate(1.0), tally.to_go(1.0)) == (1.0, 2.0)


def test_a_moment_of_waiting_is_not_none() -> None:
    tally = Tally(load())
    tally.waited.update({"pace": 0.3})
    assert "<td>pace</td><td class='n'>under 1</td>" in page(summary(1, 5, 0.5), tally)


@pytest.mark.parametrize(("most", "said"), [(1e-6, "$0.000001"), (1e6, "$1,000,000")])
def test_what_may_be_spent_is_said_as_it_was_given(most: float, said: str) -> None:
    budget = Budget(Options(max_cost=most), Tally(load()), load())
    assert not budget.allows(2e6, ())
    assert str(budget.used_up) == (
        f"the run has spent $0 of the {said} it may, and the next request can cost $2,000,000.00; raise --max-cost, "
        f"or cap answers with max_completion_tokens, and run again"
    )


async def test_an_input_without_rows_leaves_none(place: Place) -> None:
    place.write([])
    async with MockServer(tier="tier-1") as mock:
        told = await place.run(mock)
    assert (told.total, told.left, told.exit_code) == (0, 0, 0)


def test_a_plan_of_nothing_and_of_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.jsonl").touch()
    assert main(["plan", str(tmp_path / "none.jsonl")]) == 0
    assert capsys.readouterr().out == "0 requests\n"
    (tmp_path / "one.jsonl").write_text(json.dumps(ask("hi")))
    assert main(["plan", str(tmp_path / "one.jsonl"), "--tier", "tier-1"]) == 0
    assert "$0.0002 (under 0.0001 to 0.0098)" in capsys.readouterr().out
