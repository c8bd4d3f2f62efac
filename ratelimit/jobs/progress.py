"""Shows a run while it goes on: a live panel on a terminal, a plain line every so often elsewhere.

It looks at the tally and at the lanes; nothing tells it anything, so a run costs the same whether or not it is watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from ratelimit.admission.scheduler import LaneStatus, LimitStatus
from ratelimit.jobs.job import Watched, Watcher
from ratelimit.jobs.summary import duration
from ratelimit.wire.client import Client

_PANEL_EVERY = 0.5  # seconds
_LINE_EVERY = 10.0
_MEMORY = 20.0  # seconds of the past that tell how fast it goes


class Pace:
    """How fast answers have come lately."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def note(self, now: float, answered: int) -> float:
        """Take in a count; returns answers per second of late."""
        self._seen.append((now, answered))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _MEMORY:
            self._seen.pop(0)
        (then, before), (last, count) = self._seen[0], self._seen[-1]
        return (count - before) / (last - then) if last > then else 0.0


class PlainLines(Watcher):
    """A line every ten seconds, for logs and pipes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    async def watch(self, run: Watched, client: Client) -> None:
        """Say how it stands, until cancelled."""
        pace, clock = Pace(), asyncio.get_running_loop().time
        while True:
            pace.note(clock(), run.tally.answers)
            await asyncio.sleep(_LINE_EVERY)
            self._say(line(run, client, pace.note(clock(), run.tally.answers)))


class LivePanel(Watcher):
    """A panel that stays in place, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def watch(self, run: Watched, client: Client) -> None:
        """Draw how it stands, until cancelled."""
        pace, clock = Pace(), asyncio.get_running_loop().time
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(panel(run, client, pace.note(clock(), run.tally.answers)), refresh=True)
                await asyncio.sleep(_PANEL_EVERY)


def line(run: Watched, client: Client, rate: float) -> str:
    """Return how a run stands in one line."""
    tally, lanes = run.tally, client.snapshot()
    if not tally.begun:
        return f"checking the input: {tally.looked_at:,} lines"
    left = "" if tally.left is None else f", {tally.left:,} left"
    return (
        f"{tally.answers:,} answered, {tally.failed:,} failed{left}, {rate * 60:,.0f} a minute, {_binding(lanes)}, "
        f"{sum(lane.in_flight for lane in lanes):,} in flight, {client.count.retried:,} retries, "
        f"{client.count.refused:,} refused, ${tally.cost:,.4f}{_ending(tally.left, rate)}"
        + (f"; {standing}" if (standing := run.standing()) else "")
    )


def panel(run: Watched, client: Client, rate: float) -> Panel:
    """Return how a run stands as a panel."""
    tally, lanes, count = run.tally, client.snapshot(), client.count
    if not tally.begun:
        return _framed("checking the input", Text(f"{tally.looked_at:,} lines"))
    done = tally.done_before + tally.answers + tally.failed
    part = done / tally.total if tally.total else 0.0
    going = _facts(
        f"{tally.done_before + tally.answers:,}{f' of {tally.total:,}' if tally.total else ''} answered",
        Text(f"{tally.failed:,} failed", style="red" if tally.failed else "dim"),
        "" if tally.left is None else f"{tally.left:,} left",
        f"{rate * 60:,.0f} a minute",
        Text(_ending(tally.left, rate).removeprefix(", "), style="bold"),
    )
    projected = tally.cost / tally.answers * (tally.answers + (tally.left or 0)) if tally.answers else 0.0
    sending = _facts(
        f"{sum(lane.in_flight for lane in lanes):,} in flight",
        f"{count.retried:,} sent again",
        Text(f"{count.refused:,} refused by a limit", style="yellow" if count.refused else "dim"),
    )
    spending = _facts(
        f"{tally.input_tokens:,} tokens in, {tally.output_tokens:,} out",
        f"${tally.cost:,.4f} so far" + (f", about ${projected:,.4f} in all" if projected else ""),
    )
    parts: list[RenderableType] = [going, "", _limits(lanes), "", sending, spending]
    if standing := run.standing():
        parts.append(Text(standing))
    if tally.total:
        parts.insert(0, Text.assemble(_bar(part, 60, "green"), f" {part:4.0%}"))
    if client.sender.paused:
        return _framed("the service seems to be down: asking now and then", *parts, style="yellow")
    return _framed(_binding(lanes), *parts)


def _framed(title: str, *parts: RenderableType, style: str = "none") -> Panel:
    return Panel(Group(*parts), title=title, title_align="left", border_style=style, padding=(0, 1))


def _facts(*facts: str | Text) -> Text:
    return Text("  ").join(Text(fact) if isinstance(fact, str) else fact for fact in facts if fact)


def _bar(part: float, width: int, style: str) -> Text:
    """Return a bar that can be read without colours, too."""
    full = min(max(round(part * width), 0), width)
    return Text.assemble(("━" * full, style), ("╌" * (width - full), "dim"))


def _limits(lanes: tuple[LaneStatus, ...]) -> Grid:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for lane in lanes:
        for number, limit in enumerate(lane.limits):
            used = min(max(limit.used_last_minute, 0.0), 1.0)
            binding = lane.waiting_for == limit.name
            grid.add_row(
                Text(lane.name if number == 0 else ""),
                Text(limit.name, style="bold cyan" if binding else "dim"),
                _bar(used, 30, "bold cyan" if binding else "cyan"),
                Text(f"{used:.0%}", style="bold" if binding else "", justify="right"),
                Text(f"of {limit.limit:,.0f}", style="dim"),
                Text(_shared(limit), style="yellow"),
            )
    return grid


def _shared(limit: LimitStatus) -> str:
    return f"somebody else takes {1 - limit.share:.0%}" if limit.share < 0.9 else ""


def _binding(lanes: tuple[LaneStatus, ...]) -> str:
    """Return what limits the run now."""
    reasons = sorted({_reason(lane, lane.waiting_for) for lane in lanes if lane.waiting and lane.waiting_for})
    return f"limited by {' and '.join(reasons)}" if reasons else "limited by nothing of ours"


def _reason(lane: LaneStatus, waiting_for: str) -> str:
    """Return what is waited for; the pace of a lane whose limit is used up is that limit's."""
    used = max(lane.limits, key=lambda limit: limit.used_last_minute, default=None)
    return used.name if waiting_for == "pace" and used and used.used_last_minute > 0.97 else waiting_for


def _ending(left: int | None, rate: float) -> str:
    return f", {duration(left / rate)} to go" if left and rate > 0 else ""
