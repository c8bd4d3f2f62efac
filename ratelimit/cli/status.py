"""`ratelimit status`: the batches of a job, as its ledger and the service tell of them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table as Rows

from ratelimit.cli.complaints import tell
from ratelimit.compose import make_table, make_transport
from ratelimit.errors import OutputUnusable, RateLimitError, RequestFailed, printable
from ratelimit.jobs.batches.api import Api, Batch
from ratelimit.jobs.batches.ledger import Enqueued, ledger_path, read
from ratelimit.jobs.figures import counted, duration
from ratelimit.settings import Settings, load_settings

_WIDE = 200  # columns of a pipe, which has none


@click.command()
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tier", help="Usage tier of the key: free, tier-1 ... tier-5.")
@click.option("--base-url", metavar="URL", help="Another OpenAI-compatible service.")
@click.option("--tiers-file", type=click.Path(path_type=Path, dir_okay=False), help="Tier tables of your own.")
@click.option("--offline", is_flag=True, help="Show what is on disk, and ask nobody.")
def status(results: Path, *, offline: bool, **given: Any) -> int:
    """Show the batches of a job that runs, or ran, with --via batch. RESULTS is the file it writes to.

    \b
    Example:
      ratelimit status results.jsonl
    """
    settings = load_settings(**given)
    known = enqueued(results)
    told = {} if offline else asyncio.run(_ask(settings, [each for each in known if each.ended is None and each.batch]))
    _show(known, told, settings)
    return 0


def enqueued(results: Path) -> list[Enqueued]:
    """Return what a job has enqueued; raises where there is no such job."""
    if not ledger_path(results).exists():
        raise OutputUnusable(
            str(results), "no batch was ever created for it", "name the output of a run with --via batch"
        )
    return read(results)


async def _ask(settings: Settings, running: list[Enqueued]) -> dict[str, Batch]:
    async with make_transport(settings) as transport:
        api = Api(transport, tell)
        return {each.tag: found for each in running if (found := await _found(api, each.batch or ""))}


async def _found(api: Api, name: str) -> Batch | None:
    try:
        return await api.get(name)
    except RequestFailed:
        return None


def _show(known: list[Enqueued], told: dict[str, Batch], settings: Settings) -> None:
    console, now = Console(width=None if sys.stdout.isatty() else _WIDE, markup=False), time.time()
    running = [each for each in known if each.ended is None]
    if running:
        rows = Rows(box=None, pad_edge=False)
        for name in ("batch", "model", "status", "done", "failed", "of", "tokens", "age"):
            rows.add_column(name, justify="left" if name in {"batch", "model", "status"} else "right", no_wrap=True)
        for each in running:
            batch = told.get(each.tag)
            counts = batch.counts if batch else None
            rows.add_row(
                printable(each.batch or "being created"),
                printable(each.lane),
                printable(batch.status) if batch else "not known",
                f"{counts.completed or 0:,.0f}" if counts else "",
                f"{counts.failed or 0:,.0f}" if counts else "",
                f"{each.rows:,}",
                f"{each.tokens:,}",
                duration(max(now - each.at, 0.0)),
            )
        console.print(rows)
    tokens: Counter[str] = Counter()
    for each in running:
        tokens[each.lane] += each.tokens
    for lane, count in tokens.items():
        console.print(f"{printable(lane)}: {count:,} input tokens enqueued{_limit(settings, lane)}", highlight=False)
    ended = Counter(each.ended for each in known if each.ended)
    ends = ", ".join(f"{count:,} {printable(end or '')}" for end, count in sorted(ended.items(), key=str))
    answered = sum(each.answered for each in known)
    console.print(
        f"{counted(len(running), 'batch')} under way; over: {ends or 'none'}; {counted(answered, 'row')} came back"
    )


def _limit(settings: Settings, lane: str) -> str:
    try:
        limit = make_table(settings).on(lane, settings.tier).batch_queue
    except RateLimitError:
        return ""
    return f" of {limit:,}" if limit else ""
