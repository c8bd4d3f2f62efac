"""What is shown of a run: lines in a pipe, a panel on a terminal, a summary, and a page."""

from __future__ import annotations

import asyncio
import copy
import io
import re
from collections import Counter
from dataclasses import replace

from jobbing import Place, ask, batch_line
from rich.console import Console

from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.jobs.preflight import Findings
from ratelimit.jobs.progress import LivePanel, PlainLines, panel
from ratelimit.jobs.report import page, plot
from ratelimit.jobs.standing import look
from ratelimit.jobs.tally import Point, Tally
from ratelimit.limits.tiers import load
from ratelimit.testing.mock import MockServer
from ratelimit.wire.messages import Reply


class Look(Watcher):
    """Takes the panel as a terminal would show it, once."""

    def __init__(self, after: float, width: int = 110) -> None:
        self.width = width
        self.after = after
        self.shown = ""
        self.tally: Tally

    async def watch(self, run: Watched, client: Sending) -> None:
        await asyncio.sleep(self.after)
        self.tally = copy.deepcopy(run.tally)
        console = Console(file=io.StringIO(), width=self.width, force_terminal=True, color_system=None)
        with console.capture() as captured:
            console.print(panel(look(run, client)))
        self.shown = captured.get()


async def test_lines_for_a_pipe(place: Place) -> None:
    said: list[str] = []
    place.write(batch_line(f"row-{number}") for number in range(40))
    async with MockServer(tier="tier-1", echo=True, latency="1") as mock:
        await place.run(mock, Options(concurrency=2), watcher=PlainLines(said.append))
    assert len(said) == 2
    found = re.fullmatch(
        r"(\d+) answered, 0 failed, (\d+) left, (\d+) a minute, limited by nothing of ours, 2 in flight, 0 retries, "
        r"0 refused, \$0\.000\d, [\d.]+ s to go",
        said[0],
    )
    assert found
    answered, left, rate = map(int, found.groups())
    assert answered + left == 40
    assert rate == answered * 6


async def test_a_panel_for_a_terminal(place: Place) -> None:
    place.write(batch_line(f"row-{number}") for number in range(90))
    look = Look(20)
    async with MockServer(tier="tier-1", echo=True, rpm=60) as mock:
        await place.run(mock, watcher=look, rpm=60)
    lines = look.shown.splitlines()
    assert lines[0].startswith("╭─ limited by RPM ─")
    text = look.shown
    assert re.search(r"7\d of 90 answered", text)
    assert re.search(r"1\d left", text)
    assert re.search(r"gpt-4o-mini +RPM +━", text)
    assert re.search(r"100%  of 60", text)
    assert all(len(line) == 110 for line in lines)


async def test_a_panel_for_a_narrow_terminal(place: Place) -> None:
    place.write(batch_line(f"row-{number}") for number in range(90))
    look = Look(20, width=50)
    async with MockServer(tier="tier-1", echo=True, rpm=60) as mock:
        await place.run(mock, watcher=look, rpm=60)
    lines = [line.strip("│ ") for line in look.shown.splitlines()]
    assert all(len(line) == 50 for line in look.shown.splitlines())
    assert "…" not in look.shown, "bars give way, and nothing that is read"
    assert re.fullmatch("━+╌+ +8[0-9]%", lines[1])
    assert [line for line in lines if "a minute" in line] == [lines[3]], "a fact stands on one line"
    (limit,) = (line for line in lines if line.startswith("gpt-4o-mini"))
    assert re.fullmatch(r"gpt-4o-mini  RPM  ━+  100%  of 60", limit)


async def test_a_terminal_is_left_as_it_was(place: Place) -> None:
    place.write(batch_line(f"row-{number}") for number in range(20))
    screen = io.StringIO()
    console = Console(file=screen, width=100, force_terminal=True)
    async with MockServer(tier="tier-1", echo=True, latency="1") as mock:
        await place.run(mock, Options(concurrency=2), watcher=LivePanel(console))
    assert "in flight" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")  # what was drawn is wiped


async def test_a_page_about_a_run_fetches_nothing_and_escapes_everything(place: Place) -> None:
    place.write(
        [batch_line("a"), batch_line("b"), *(batch_line(f"f{n}", ask("hi") | {"messages": []}) for n in range(3))]
    )
    report = place.path / "report.html"
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock, report=report)
    text = report.read_text(encoding="utf-8")
    assert place.said == [f"report   {report}"]
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|<script", text)
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<svg") == 3
    assert "<dt>answered</dt><dd>2</dd>" in text
    assert "<td class='n'>3</td>" in text
    assert summary.failed == 3


def test_a_plot_shows_the_cap_where_it_is_in_sight() -> None:
    points = [Point(float(n)) for n in range(4)]
    near = plot(points, [("red", [1.0, 2.0, 3.0, 4.0])], 1.0, cap=5.0)
    far = plot(points, [("red", [1.0, 2.0, 3.0, 4.0])], 1.0, cap=500.0)
    assert "the limit, 5" in near
    assert "the limit" not in far
    assert near.count("<polyline") == 1
    assert plot([], [("red", [])], 1.0) == "<p>Nothing was sent.</p>"


async def test_what_comes_from_elsewhere_is_escaped(place: Place) -> None:
    place.write([batch_line("a")])
    async with MockServer(tier="tier-1", echo=True) as mock:
        summary = await place.run(mock)
    nasty = replace(summary, stopped="<script>alert(1)</script>", failures={"<b>": 2})
    tally = Tally(load())
    tally.waited.update({"pace": 4.4, "<i>": 2.0})
    text = page(nasty, tally)
    assert "<script>" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text
    assert "<i>" not in text
    assert "<td>pace</td><td class='n'>4</td><td>a full limit is opened over some seconds, not in" in text


async def test_an_opening_burst_does_not_promise_to_go_on(place: Place) -> None:
    place.write(batch_line(f"row-{number}") for number in range(300))
    look = Look(5)
    async with MockServer(tier="tier-1", echo=True, rpm=60) as mock:
        summary = await place.run(mock, watcher=look, rpm=60)
    (told,) = re.findall(r"([0-9]) min ([0-9]+) s to go", look.shown)
    assert abs(int(told[0]) * 60 + int(told[1]) + 5 - summary.seconds) < 10


def test_a_run_ends_when_its_slowest_lane_does() -> None:
    tally, lanes = Tally(load()), {"gpt-4o-mini": (300, 0.0), "gpt-4.1-mini": (110, 0.0)}
    tally.start(Findings(rows=410, lanes=lanes), 0.0)
    reply = Reply(200, {}, b"{}")
    assert tally.to_go(0.0) is None
    for second in range(10):
        for _ in range(10):
            tally.answered("gpt-4o-mini-2024-07-18", reply, 0.0, float(second))
        assert tally.to_go(second + 1.0) is None, "of one lane nothing is known"
    for second in range(10, 20):
        tally.answered("gpt-4.1-mini", reply, 0.0, float(second))
    assert (tally.left, tally.to_go(20.0)) == (300, 100 / 0.5)
    tally.gave_up("400", 19.0, "gpt-4.1-mini")
    for second in range(20, 30):
        for _ in range(20):
            tally.answered("gpt-4o-mini", reply, 0.0, float(second))
        tally.answered("gpt-4.1-mini", reply, 0.0, float(second))
    assert (tally.left, tally.to_go(30.0)) == (89, 89 / 1)
    assert tally.to_go(60.0) == 89 / (20 / 60), "one that is silent of late goes on as it has on the whole"


def test_where_lanes_were_not_counted_a_run_goes_on_as_it_does() -> None:
    tally = Tally(load())
    tally.start(Findings(rows=100, done=30, lanes={"gpt-4o-mini": (100, 0.0)}), 0.0)  # counted before a crash
    for _ in range(20):
        tally.answered("gpt-4o-mini", Reply(200, {}, b"{}"), 0.0, 5.0)
    assert tally.to_go(10.0) == 50 / 2


async def test_a_run_that_was_stopped_knows_what_each_lane_has_left(place: Place) -> None:
    models = ["gpt-4o-mini"] * 4 + ["gpt-4.1-mini"] * 60
    place.write(batch_line(f"row-{n}", ask("hi", model)) for n, model in enumerate(models))
    async with MockServer(tier="tier-1", echo=True, latency="1") as mock:
        stopped = await place.run(mock, Options(concurrency=4, deadline=8))
        look = Look(5)
        await place.run(mock, Options(concurrency=4), watcher=look)
    (left,) = re.findall(r"([\d,]+) left", look.shown)
    assert stopped.left
    assert look.tally.left_of == Counter({"gpt-4.1-mini": int(left)})
    assert "to go" in look.shown
