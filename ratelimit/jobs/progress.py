"""Shows a run while it goes on: a live panel on a terminal, a plain line every so often elsewhere.

It looks at the tally and at the lanes; nothing tells it anything, so a run costs the same whether or not it is watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from ratelimit.admission.scheduler import LaneStatus, LimitStatus
from ratelimit.jobs.figures import duration, money, per_minute
from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.jobs.standing import Standing, binding, look

_PANEL_EVERY = 0.5  # seconds
_LINE_EVERY = 10.0
_LINE_SHARE = 0.005  # of the time that a run has taken: who follows one of days wants fewer


class PlainLines(Watcher):
    """A line every ten seconds, and from half an hour on less often, for logs and pipes."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    async def watch(self, run: Watched, client: Sending) -> None:
        """Say how it stands, until cancelled."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            await asyncio.sleep(max(_LINE_EVERY, (clock() - began) * _LINE_SHARE))
            self._say(line(look(run, client)))


class LivePanel(Watcher):
    """A panel that stays in place, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def watch(self, run: Watched, client: Sending) -> None:
        """Draw how it stands, until cancelled."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(panel(look(run, client)), refresh=True)
                await asyncio.sleep(_PANEL_EVERY)


def line(run: Standing) -> str:
    """Return how a run stands in one line."""
    if not run.begun:
        return f"checking the input: {run.looked_at:,} lines"
    left = "" if run.left is None else f", {run.left:,} left"
    speed = "" if run.rate is None else f", {per_minute(run.rate)} a minute"
    ending = f", {duration(run.to_go)} to go" if run.to_go else ""
    return (
        f"{run.answered:,} answered, {run.failed:,} failed{left}{speed}, {run.limited_by}, "
        f"{run.in_flight:,} in flight, {run.retried:,} retries, {run.refused:,} refused, {money(run.cost)}{ending}"
        + (f"; {run.beside}" if run.beside else "")
    )


def panel(run: Standing) -> Panel:
    """Return how a run stands as a panel."""
    if not run.begun:
        return _framed("checking the input", Text(f"{run.looked_at:,} lines"))
    going = Facts(
        f"{run.done:,}{f' of {run.total:,}' if run.total else ''} answered",
        Text(f"{run.failed:,} failed", style="red" if run.failed else "dim"),
        "" if run.left is None else f"{run.left:,} left",
        "" if run.rate is None else f"{per_minute(run.rate)} a minute",
        Text(f"{duration(run.to_go)} to go" if run.to_go else "", style="bold"),
    )
    sending = Facts(
        f"{run.in_flight:,} in flight",
        f"{run.retried:,} sent again",
        Text(f"{run.refused:,} refused by a limit", style="yellow" if run.refused else "dim"),
    )
    spending = Facts(
        f"{run.input_tokens:,} tokens in, {run.output_tokens:,} out",
        f"{money(run.cost)} so far",
        f"about {money(run.projected)} in all" if run.projected else "",
    )
    parts: list[RenderableType] = [going, "", _limits(run.lanes), "", sending, spending]
    if run.beside:
        parts.append(Text(run.beside))
    if run.part is not None:
        whole = Grid.grid(padding=(0, 1, 0, 0))
        whole.add_row(_Bar(run.part, 60, "green"), Text(f"{int(run.part * 100):3d}%"))
        parts.insert(0, whole)
    return _framed(run.limited_by, *parts, style="yellow" if run.down else "none")


def _framed(title: str, *parts: RenderableType, style: str = "none") -> Panel:
    return Panel(Group(*parts), title=title, title_align="left", border_style=style, padding=(0, 1))


class Facts:
    """Facts side by side, as many to a line as it holds; none is broken."""

    def __init__(self, *facts: str | Text) -> None:
        self._facts = [Text(fact) if isinstance(fact, str) else fact for fact in facts if fact]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [Text()]
        for fact in self._facts:
            if lines[-1] and lines[-1].cell_len + 2 + fact.cell_len > options.max_width:
                lines.append(Text())
            lines[-1].append_text(Text("  ") if lines[-1] else Text()).append_text(fact)
        yield from lines


class _Bar:
    """A bar as long as there is room, that can be read without colours, too."""

    def __init__(self, part: float, longest: int, style: str) -> None:
        self._part = part
        self._longest = longest
        self._style = style

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, min(self._longest, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self._longest, options.max_width)
        full = min(max(round(self._part * width), 0), width)
        yield Text.assemble(("━" * full, self._style), ("╌" * (width - full), "dim"))


def _limits(lanes: tuple[LaneStatus, ...]) -> Grid:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for wraps in (False, False, True, False, False, True):
        grid.add_column(no_wrap=not wraps)
    for lane in lanes:
        for number, limit in enumerate(lane.limits):
            used = min(max(limit.used_last_minute, 0.0), 1.0)
            binds = binding(lane) == limit.name
            grid.add_row(
                Text(lane.name if number == 0 else ""),
                Text(limit.name, style="bold cyan" if binds else "dim"),
                _Bar(used, 30, "bold cyan" if binds else "cyan"),
                Text(f"{used:.0%}", style="bold" if binds else "", justify="right"),
                Text(f"of {limit.limit:,.0f}", style="dim"),
                Text(_shared(limit), style="yellow"),
            )
    return grid


def _shared(limit: LimitStatus) -> str:
    return f"somebody else takes {1 - limit.share:.0%}" if limit.share < 0.9 else ""
