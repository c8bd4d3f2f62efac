"""`ratelimit cancel`: ends the batches of a job, and keeps what they have answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from ratelimit.cli.complaints import tell
from ratelimit.cli.status import enqueued
from ratelimit.jobs.batches.job import run
from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Job
from ratelimit.jobs.progress import PlainLines
from ratelimit.jobs.source import Source
from ratelimit.settings import load_settings


@click.command()
@click.argument("results", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tier", help="Usage tier of the key: free, tier-1 ... tier-5.")
@click.option("--base-url", metavar="URL", help="Another OpenAI-compatible service.")
@click.option("--tiers-file", type=click.Path(path_type=Path, dir_okay=False), help="Tier tables of your own.")
@click.option("--keep-files", is_flag=True, help="Leave the batches' files at the service.")
def cancel(results: Path, *, keep_files: bool, **given: Any) -> int:
    """Cancel the batches of a job, wait until they are over, and keep what they have answered.

    RESULTS is the file that `ratelimit run --via batch` writes to; stop that run first. The service takes up to ten
    minutes.

    \b
    Example:
      ratelimit cancel results.jsonl
    """
    enqueued(results)
    job = Job(Source(str(results)), results, Options())
    settings = load_settings(**given, batch_files="keep" if keep_files else None)
    summary = asyncio.run(run(job, settings, say=tell, cancelling=True, watcher=PlainLines(tell)))
    for line in summary.lines():
        tell(line)
    return summary.exit_code
