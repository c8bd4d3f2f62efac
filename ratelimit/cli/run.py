"""`ratelimit run`: a file of requests in, one result per request out."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console

from ratelimit.admission.events import Observer
from ratelimit.cli.complaints import complain, tell
from ratelimit.cli.inputs import Dollars, Duration, Part, Port, source, templated
from ratelimit.cli.logs import logged
from ratelimit.errors import BadSettings
from ratelimit.jobs import job as jobs
from ratelimit.jobs.batches import job as batches
from ratelimit.jobs.batches import ledger
from ratelimit.jobs.budget import Options
from ratelimit.jobs.preflight import InputRefused
from ratelimit.jobs.progress import LivePanel, PlainLines
from ratelimit.jobs.runner import Say
from ratelimit.jobs.summary import Summary
from ratelimit.settings import Settings, load_settings

_FILE = click.Path(path_type=Path, dir_okay=False)

_SETTINGS = ("tier", "base_url", "rpm", "tpm", "rpd", "concurrency", "tiers_file", "shared", "weight", "otel")


@click.command()
@click.argument("requests", metavar="REQUESTS")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where results go; - is standard output.")
@click.option("--tier", help="Usage tier of the key: free, tier-1 ... tier-5.")
@click.option("--model", help="The model for lines that name none.")
@click.option("--base-url", metavar="URL", help="Another OpenAI-compatible service.")
@click.option("--rpm", type=click.IntRange(1), help="Requests per minute at most, whatever the table says.")
@click.option("--tpm", type=click.IntRange(1), help="Tokens per minute at most.")
@click.option("--rpd", type=click.IntRange(1), help="Requests per day at most.")
@click.option("--concurrency", type=click.IntRange(1), help="Requests in flight at most.")
@click.option("--tiers-file", type=_FILE, help="Tier tables of your own.")
@templated
@click.option("--max-cost", type=Dollars(), metavar="USD", help="Stop before this is spent.")
@click.option("--max-requests", type=click.IntRange(1), help="Stop after so many requests.")
@click.option("--deadline", type=Duration(), help="Stop after so long: 90s, 15min, 2h; with --via auto, be done then.")
@click.option("--limit", type=click.IntRange(1), metavar="ROWS", help="Send only so many rows, to try things out.")
@click.option("--shard", type=Part(), metavar="I/N", help="Send only the I-th of N parts, counted from 0.")
@click.option("--retry-failed", is_flag=True, help="Send those again that are in the errors file.")
@click.option("--skip-bad", is_flag=True, help="Have bad lines in the errors file and send the others.")
@click.option("--no-preflight", is_flag=True, help="Do not look through the input first.")
@click.option("--force", is_flag=True, help="Keep answers to requests that have changed since.")
@click.option("--pause-at-daily-limit", is_flag=True, help="Stop when a day's limit is reached instead of waiting.")
@click.option(
    "--via",
    type=click.Choice(["live", "batch", "auto"]),
    default="live",
    help="Which API: live; the Batch API at its price; or auto: as much by batch as the deadline lets.",
)
@click.option("--keep-files", is_flag=True, help="With --via batch or auto: leave the batches' files at the service.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--no-progress", is_flag=True, help="Show no progress, only the summary.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
@click.option("--report", type=_FILE, help="Write an HTML page about the run.")
@click.option(
    "--dashboard",
    type=Port(),
    is_flag=False,
    flag_value=0,
    metavar="[PORT]",
    help="Serve the live panel as a page on this machine; without PORT, on any that is free.",
)
@click.option("--shared", metavar="WHERE", help="Share limits through redis://..., file (the default), or not: off.")
@click.option("--weight", type=click.FloatRange(0, min_open=True), help="Our part beside other programs' 1.")
@click.option("--metrics", type=click.IntRange(0, 65535), metavar="PORT", help="Serve metrics for Prometheus there.")
@click.option("--otel", is_flag=True, default=None, help="Export spans and metrics to where OTEL_ variables say.")
def run(requests: str, output: str, **given: Any) -> int:
    """Send every request of a file at the speed the tier allows, and write one result for each.

    REQUESTS is JSONL: lines of the Batch API, or bare request bodies; .gz and .zst are unpacked; - is standard input.
    The same command again continues where the last one ended, however it ended.

    \b
    Examples:
      ratelimit run requests.jsonl -o results.jsonl --tier tier-1
      ratelimit run rows.csv -o out.jsonl --template ask.txt --model gpt-4o-mini
      ratelimit run requests.jsonl -o results.jsonl --limit 50 --max-cost 1
      ratelimit run requests.jsonl -o results.jsonl --via auto --deadline 6h
    """
    _check(given)
    settings = load_settings(
        **{name: given[name] for name in _SETTINGS},
        batch_files="keep" if given["keep_files"] else None,
    )
    if settings.shared is None:  # two runs side by side are to share without being told
        settings = replace(settings, shared="file")
    job = jobs.Job(
        replace(source(requests, given), shard=given["shard"]),
        None if output == "-" else Path(output),
        Options(
            limit=given["limit"],
            max_cost=given["max_cost"],
            max_requests=given["max_requests"],
            deadline=given["deadline"],
            skip_bad=given["skip_bad"],
            check=not given["no_preflight"],
            force=given["force"],
            pause_at_daily_limit=given["pause_at_daily_limit"],
            concurrency=settings.concurrency,
        ),
        retry_failed=given["retry_failed"],
        report=given["report"],
    )
    say = _silent if given["quiet"] else tell
    try:
        with (
            logged("error" if given["quiet"] else settings.log_level),
            _exporting(settings, given["via"], say) as told,
            _rare_collection(),
        ):
            summary = asyncio.run(_run(job, settings, say, given, told))
    except InputRefused as refused:
        first, *lines = str(refused).splitlines()
        complain(first)
        for line in lines:
            tell(line)
        return refused.exit_code
    if given["as_json"]:
        click.echo(summary.json(), err=output == "-")
    elif not given["quiet"]:
        for line in summary.lines():
            tell(line)
    elif summary.stopped:
        complain(summary.stopped)
    return summary.exit_code


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Have the garbage collector look less often: what a row leaves behind is freed without it.

    By default it looks whenever seven hundred objects are new, which a hundred rows on their way always are.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _run(job: jobs.Job, settings: Settings, say: Say, given: dict[str, Any], told: list[Observer]) -> Summary:
    if given["via"] == "live":
        if job.output and (enqueued := [each for each in ledger.read(job.output) if each.ended is None]):
            raise ledger.BatchesUnderWay(str(job.output), len(enqueued))
        watcher, observers = _onlookers(given, say)
        return await jobs.run(job, settings, say=say, watcher=watcher, observer=[*observers, *told])
    watcher, observers = _onlookers(given, say)
    both = given["via"] == "auto"
    return await batches.run(job, settings, say=say, both_routes=both, watcher=watcher, observer=[*observers, *told])


def _check(given: dict[str, Any]) -> None:
    """Raise `UsageError` for options that do not go together."""
    if given["via"] == "live":
        return
    for needless in ("max_cost", "max_requests", "pause_at_daily_limit", "no_preflight", "report"):
        if given[needless]:
            raise click.UsageError(f"--{needless.replace('_', '-')} goes with --via live")
    if given["via"] == "auto" and not given["deadline"]:
        raise click.UsageError("--via auto needs --deadline: it is what decides which way a request goes")


def _onlookers(given: dict[str, Any], say: Say) -> tuple[jobs.Watcher, list[Observer]]:
    """Return who is shown the run, and who is told of what happens in it; web servers load where they are wanted."""
    watchers: list[jobs.Watcher] = []
    observers: list[Observer] = []
    if given["dashboard"] is not None:
        from ratelimit.jobs.dashboard import Dashboard  # noqa: PLC0415 - as above

        watchers.append(Dashboard(_port("dashboard", given["dashboard"], "", say)))
    if given["metrics"] is not None:
        from ratelimit.jobs.exposition import Exposition  # noqa: PLC0415 - as above
        from ratelimit.metrics import Metrics  # noqa: PLC0415 - as above

        observers.append(metrics := Metrics())
        watchers.append(Exposition(_port("metrics", given["metrics"], "metrics", say), metrics))
    if not (given["quiet"] or given["no_progress"]):
        watchers.append(LivePanel(Console(stderr=True)) if sys.stderr.isatty() else PlainLines(tell))
    return jobs.Together(watchers), observers


@contextmanager
def _exporting(settings: Settings, via: str, say: Say) -> Iterator[list[Observer]]:
    where = settings.origin("otel")
    if settings.otel and via == "batch":
        say(f"{where}: the Batch API tells nothing of single requests, so there is nothing to export")
    if not settings.otel or via == "batch":
        yield []
        return
    try:
        from ratelimit.otel import exporting  # noqa: PLC0415 - slow, and an extra
    except ImportError:
        raise BadSettings(where, "needs OpenTelemetry", "pip install 'ratelimit-scheduler[otlp]'") from None
    with exporting(where, urlsplit(settings.base_url).hostname) as telemetry:
        yield [telemetry]


def _port(what: str, port: int, path: str, say: Say) -> socket:
    from ratelimit.watch.serving import address, bind  # noqa: PLC0415 - as above

    taken = bind(port)
    say(f"{what:8} {address(taken)}{path}")
    return taken


def _silent(line: str) -> None:
    del line
