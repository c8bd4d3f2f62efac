"""`ratelimit plan`: how long a job will take and what it will cost, before a cent is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid

from ratelimit.cli.inputs import Duration, source, templated
from ratelimit.compose import make_table
from ratelimit.errors import RateLimitError, printable
from ratelimit.jobs.figures import amount, counted, duration, money
from ratelimit.jobs.plan import Cost, LanePlan, TierPlan, plan
from ratelimit.jobs.survey import Survey, survey
from ratelimit.limits.tiers import TIERS, Table, TierLimits
from ratelimit.settings import load_settings

_SHOWN = 20
_WORDS = ("Tier", "Model", "Limited by")  # columns of words stand left


@click.command("plan")
@click.argument("requests", metavar="REQUESTS")
@click.option("--tier", help="Usage tier of the key: free, tier-1 ... tier-5.")
@click.option("--all-tiers", is_flag=True, help="One row for each tier.")
@click.option("--model", help="The model for lines that name none.")
@templated
@click.option("--tiers-file", type=click.Path(path_type=Path, dir_okay=False), help="Tier tables of your own.")
@click.option("--expected-output", type=click.IntRange(0), metavar="TOKENS", help="How long answers will be.")
@click.option("--sample", type=click.IntRange(2), metavar="N", help="Measure one line in N; the error is stated.")
@click.option("--deadline", type=Duration(), help="Plan both routes, as --via auto goes them: 90min, 6h.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(requests: str, **given: Any) -> int:
    """Say how long a file of requests takes and what it costs, without sending anything.

    The time comes from the scheduler itself, run over the file on a virtual clock.

    \b
    Examples:
      ratelimit plan requests.jsonl --tier tier-1
      ratelimit plan requests.jsonl --all-tiers --expected-output 150
      ratelimit plan requests.jsonl --deadline 6h
    """
    settings = load_settings(tier=given["tier"], tiers_file=given["tiers_file"])
    table = make_table(settings)
    found = Survey()
    for found in survey(  # noqa: B007 - the last one is the whole
        source(requests, given),
        table,
        every=given["sample"] or 1,
        expected_output=given["expected_output"],
    ):
        pass
    tiers = TIERS if given["all_tiers"] else (settings.tier,)
    plans = [
        plan(
            found,
            tier,
            _limits(found, table, tier),
            concurrency=settings.concurrency,
            deadline=given["deadline"],
        )
        for tier in tiers
    ]
    if given["as_json"]:
        click.echo(_json(found, plans))
    else:
        _show(found, plans)
        _show_mixtures(plans)
    return 1 if found.bad or found.duplicates else 0


def _limits(found: Survey, table: Table, tier: str) -> dict[str, TierLimits | RateLimitError]:
    limits: dict[str, TierLimits | RateLimitError] = {}
    for name in found.loads:
        try:
            limits[name] = table.on(name, tier)
        except RateLimitError as error:
            limits[name] = error
    return limits


def _json(found: Survey, plans: list[TierPlan]) -> str:
    whole = {
        "rows": found.rows,
        "measured": found.measured,
        "error": found.error(),
        "bad": found.bad,
        "problems": {str(number): text for number, text in found.problems.items()},
        "duplicates": found.duplicates,
        "plans": [{**asdict(each), "seconds": each.seconds} for each in plans],
    }
    return msgspec.json.encode(whole).decode()


def _show(found: Survey, plans: list[TierPlan]) -> None:
    click.echo(counted(found.rows, "request") + _sampled(found))
    for number, text in sorted(found.problems.items())[:_SHOWN]:
        click.echo(f"line {number}: {printable(text)}")
    if found.bad > _SHOWN:
        click.echo(f"and {found.bad - _SHOWN:,} more lines that cannot be sent")
    if found.duplicates:
        has, it = ("line has", "it") if found.duplicates == 1 else ("lines have", "them")
        click.echo(f"{found.duplicates:,} {has} an id that stands before {it}; `ratelimit run` will name {it}")
    titles = ("Tier", "Model", "Requests", "Tokens in", "Time", "Limited by", "Cost", "By Batch API")
    if rows := [(each.tier, *_cells(lane)) for each in plans for lane in each.lanes]:
        show(titles, rows, _console())
    for lane in {lane.model: lane for each in plans for lane in each.lanes if lane.oversize}.values():
        click.echo(
            f"{lane.oversize:,} requests to {lane.model} are larger than its tokens per minute and can never pass"
        )


def _show_mixtures(plans: list[TierPlan]) -> None:
    found = [(each.tier, lane, mixture) for each in plans for lane in each.lanes for mixture in lane.mixtures]
    if not found:
        return
    titles = ("Tier", "Model", "If a full queue takes", "By batch", "Live", "Done after", "Cost", "Saved")
    rows = [
        (
            tier,
            lane.model,
            duration(mixture.batch_seconds),
            f"{mixture.batched:,}",
            f"{mixture.live:,}",
            duration(mixture.seconds),
            "no price" if mixture.cost is None else money(mixture.cost),
            "" if mixture.saved is None else money(mixture.saved),
        )
        for tier, lane, mixture in found
    ]
    click.echo("with --via auto:")
    show(titles, rows, _console())


def _console() -> Console:
    return Console(highlight=False, markup=False, width=None if Console().is_terminal else 160)


def show(titles: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print a table; where it is wider than the terminal, a paragraph for each row."""
    grid = Grid(box=None, pad_edge=False)
    for title in titles:
        grid.add_column(title, justify="left" if title in _WORDS else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    if Measurement.get(console, console.options.update(max_width=1000), grid).maximum <= console.width:
        console.print(grid)
        return
    for tier, model, *cells in rows:
        facts = ", ".join(
            f"{title.lower().replace('api', 'API')} {cell}"
            for title, cell in zip(titles[2:], cells, strict=True)
            if cell
        )
        console.print(f"{tier} {model}", style="bold")
        console.print(click.wrap_text(facts, console.width, "  ", "  "), soft_wrap=True)


def _range(cost: Cost) -> str:
    return f"{money(cost.expected)} ({amount(cost.least)} to {amount(cost.most)})"


def _cells(lane: LanePlan) -> tuple[str, ...]:
    cost = _range(lane.cost) if lane.cost else "no price"
    if lane.unusable:
        return lane.model, f"{lane.requests:,}", f"{lane.input_tokens:,}", "cannot be used", "", "", ""
    batches = lane.batches
    by_batch = ""
    if batches:
        price = "" if batches.cost is None else f"{money(batches.cost)}, "
        rounds = "" if batches.rounds is None else f" in {counted(batches.rounds, 'round')}"
        by_batch = f"{price}{counted(batches.files, 'batch')}{rounds}"
    return (
        lane.model,
        f"{lane.requests:,}",
        f"{lane.input_tokens:,}",
        duration(lane.seconds or 0.0),
        lane.binding or "nothing",
        cost,
        by_batch,
    )


def _sampled(found: Survey) -> str:
    if found.measured >= found.rows:
        return ""
    return f", of which {found.measured:,} were measured; token totals are within {found.error():.1%} (95 %)"
