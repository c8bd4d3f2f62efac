"""`ratelimit top`: who shares which limits, live on a terminal, once in a pipe."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from ratelimit.admission.shared.store import HolderSeen, LaneSeen, LimitKept, StoreAway
from ratelimit.errors import printable
from ratelimit.jobs.progress import Facts
from ratelimit.limits.bucket import Limit
from ratelimit.settings import load_settings
from ratelimit.sharing import make_store

_EVERY = 0.5  # seconds between two looks


@click.command("top")
@click.option("--shared", metavar="WHERE", help="Where limits are shared: redis://..., or file, which is the default.")
@click.option("--once", is_flag=True, help="Show it once and end; a pipe gets no more than that anyway.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of lanes.")
def top(shared: str | None, *, once: bool, as_json: bool) -> None:
    """Show which programs share limits: what each holds and wants, weights, rates, and how full the limits are."""
    settings = load_settings(shared=shared)
    where = settings.shared or "file"
    if where == "off":
        raise click.UsageError("--shared off shares nothing; name a store")
    asyncio.run(_watch(where, once=once or not sys.stdout.isatty(), as_json=as_json))


async def _watch(where: str, *, once: bool, as_json: bool) -> None:
    store = make_store(where)
    try:
        await store.check()
        lanes = await store.peek()
        if as_json:
            click.echo(json.dumps(msgspec.to_builtins(lanes), indent=2))
            return
        if once:
            for line in _lines(lanes, {}):
                click.echo(line)
            return
        console = Console(highlight=False)
        with Live(_panel(lanes, {}, console), console=console, screen=False, auto_refresh=False) as live:
            at = time.monotonic()
            while True:
                await asyncio.sleep(_EVERY)
                try:
                    after, now = await store.peek(), time.monotonic()
                except StoreAway as away:
                    live.update(Text(f"the store does not answer ({printable(str(away))})"), refresh=True)
                    continue
                live.update(_panel(after, _rates(lanes, after, now - at), console), refresh=True)
                lanes, at = after, now
    finally:
        await store.aclose()


def _rates(before: list[LaneSeen], after: list[LaneSeen], seconds: float) -> dict[tuple[str, str, str], float]:
    """Return what each program was leased per second between two looks."""
    known = {(lane.lane, h.name, unit): n for lane in before for h in lane.holders for unit, n in _each(h, h.total)}
    return {
        key: max(amount - known[key], 0) / seconds
        for lane in after
        for h in lane.holders
        for unit, amount in _each(h, h.total)
        if (key := (lane.lane, h.name, unit)) in known
    }


def _each(holder: HolderSeen, amounts: list[float]) -> list[tuple[str, float]]:
    return list(zip(holder.units, amounts, strict=True))


def _limit(kept: LimitKept) -> str:
    """Say how one limit stands."""
    limit = Limit(kept.unit, kept.amount, kept.window, kept.scope)
    missing = kept.missing / 1e6 * limit.rate * kept.share
    parts = [f"{limit}: {max(kept.amount - missing, 0):,.0f} left"]
    if kept.share < 1:
        parts.append(f"{kept.share:.0%} ours")
    if kept.closed:
        parts.append(f"closed for {kept.closed / 1e6:.1f} s")
    return ", ".join(parts)


def _rows(lane: LaneSeen, rates: dict[tuple[str, str, str], float]) -> list[tuple[str, ...]]:
    return [
        (
            printable(holder.name, 60),
            f"{holder.weight:g}",
            f"{holder.priority:g}",
            _amounts(_each(holder, holder.holds)),
            _amounts(_each(holder, holder.wants)),
            _amounts([(u, rates[key]) for u in holder.units if (key := (lane.lane, holder.name, u)) in rates]) or "-",
        )
        for holder in lane.holders
    ]


def _amounts(amounts: list[tuple[str, float]]) -> str:
    return ", ".join(f"{amount:,.0f} {unit}" for unit, amount in amounts)


_COLUMNS = ("program", "weight", "priority", "holds", "waits for", "per second")


def _lines(lanes: list[LaneSeen], rates: dict[tuple[str, str, str], float]) -> list[str]:
    lines = []
    for lane in lanes:
        lines += [printable(lane.lane, 100), *(f"  {_limit(limit)}" for limit in lane.limits)]
        lines += [f"  {row[0]}: {'; '.join(_told(row))}" for row in _rows(lane, rates)]
    return lines or ["no program shares limits"]


def _told(row: tuple[str, ...]) -> list[str]:
    return [f"{what} {cell}" for what, cell in zip(_COLUMNS[1:], row[1:], strict=True) if cell not in {"", "-"}]


def _panel(lanes: list[LaneSeen], rates: dict[tuple[str, str, str], float], console: Console) -> Group:
    """Return a table for each lane; where it is wider than the terminal, a paragraph for each program."""
    shown: list[RenderableType] = []
    for lane in lanes:
        shown.append(Text(printable(lane.lane, 100), style="bold"))
        shown += [Text(f"  {_limit(limit)}") for limit in lane.limits]
        grid, rows = Grid(*_COLUMNS, box=None, pad_edge=True), _rows(lane, rates)
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        if Measurement.get(console, console.options.update(max_width=1000), grid).maximum <= console.width:
            shown.append(grid)
            continue
        for row in rows:
            shown += [Text(f"  {row[0]}"), Padding(Facts(*_told(row)), (0, 0, 0, 4))]
    return Group(*(shown or [Text("no program shares limits")]))
