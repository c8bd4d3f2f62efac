"""One run through the Batch API from beginning to end: the files, the service, the runner, and what it came to."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from ratelimit.compose import make_table, make_transport
from ratelimit.errors import BadSettings, OutputUnusable
from ratelimit.jobs.batches.api import Api
from ratelimit.jobs.batches.ledger import Ledger, ledger_path
from ratelimit.jobs.batches.runner import Runner
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.job import Job, check_places, signals
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.runner import Say
from ratelimit.jobs.summary import Summary, summarise
from ratelimit.settings import Settings
from ratelimit.wire.sender import Count


async def run(job: Job, settings: Settings, *, say: Say, keep_files: bool = False, cancelling: bool = False) -> Summary:
    """Run a job through the Batch API to its end, or until something stops it.

    To cancel is to enqueue nothing, cancel what is enqueued, and keep what it has answered by then.
    """
    output = _check(job, settings, cancelling=cancelling)
    table = make_table(settings)
    async with AsyncExitStack() as opened:
        journal = opened.enter_context(Journal(output))
        journal.recover(retry_failed=job.retry_failed)
        if job.retry_failed:
            journal.forget_failures()
        ledger = opened.enter_context(Ledger(output))
        spool = opened.enter_context(Spool(output.parent, table))
        transport = await opened.enter_async_context(make_transport(settings))
        runner = Runner(
            Api(transport, say),
            job.source,
            spool,
            table=table,
            tier=settings.tier,
            journal=journal,
            ledger=ledger,
            options=job.options,
            say=say,
            keep_files=keep_files,
            cancelling=cancelling,
        )
        with signals(runner, say) as interrupted:
            await runner.run()
        return summarise(
            runner.tally,
            Count(),
            (),
            runner.stopped,
            in_doubt=0,
            failed_before=journal.failed,
            interrupted=bool(interrupted),
        )


def _check(job: Job, settings: Settings, *, cancelling: bool) -> Path:
    """Raise for what the Batch API cannot be used with; returns the output."""
    if job.output is None:
        raise OutputUnusable("standard output", "batches are found again by files beside it", "name a file")
    if cancelling:  # which reads no input
        return job.output
    check_places(job)
    if not job.source.rereadable:
        raise OutputUnusable(
            str(job.output), "the input of a job of batches is read more than once", "name a file of requests"
        )
    if Path(job.source.path).resolve() == ledger_path(job.output).resolve():
        raise OutputUnusable(str(ledger_path(job.output)), "it is the input", "choose another output")
    if settings.azure_api_version is not None:
        raise BadSettings("azure_api_version", "is set", "Azure's batches are another API; run without --via batch")
    return job.output
