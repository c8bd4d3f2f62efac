"""One run through the Batch API from beginning to end: the files, the service, the runner, and what it came to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

from ratelimit.admission.events import Observers
from ratelimit.compose import limits_of, make_client, make_table, make_transport
from ratelimit.errors import BadSettings, OutputUnusable
from ratelimit.jobs.batches.api import Api
from ratelimit.jobs.batches.ledger import Ledger
from ratelimit.jobs.batches.runner import Runner
from ratelimit.jobs.batches.showing import Shown
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.job import Job, Watcher, check_places, report_doubt, signals, spent_before, watched
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.runner import Say
from ratelimit.jobs.summary import Summary, summarise
from ratelimit.limits.tiers import Table
from ratelimit.settings import Settings
from ratelimit.wire.sender import Count


async def run(
    job: Job,
    settings: Settings,
    *,
    say: Say,
    cancelling: bool = False,
    both_routes: bool = False,
    watcher: Watcher | None = None,
    observer: Observers = None,
) -> Summary:
    """Run a job through the Batch API to its end, or until something stops it.

    To cancel is to enqueue nothing, cancel what is enqueued, and keep what it has answered by then. With both routes,
    the deadline is when all is to be done, and the live API sees to it.
    """
    output = _check(job, settings, cancelling=cancelling)
    table = make_table(settings)
    async with AsyncExitStack() as opened:
        journal = opened.enter_context(Journal(output))
        journal.recover(retry_failed=job.retry_failed)
        if job.retry_failed:
            journal.forget_failures()
        report_doubt(journal, say)
        ledger = opened.enter_context(Ledger(output))
        client, due, options = None, None, job.options
        if both_routes and options.deadline:
            spent, elapsed = spent_before(journal)
            client = make_client(settings, table=table, observer=observer, spent=spent, elapsed=elapsed)
            await opened.enter_async_context(client)
            due = asyncio.get_running_loop().time() + ledger.left_until(options.deadline)
            options = replace(options, deadline=None)
        transport = client.transport if client else await opened.enter_async_context(make_transport(settings))
        spool = opened.enter_context(Spool(output.parent, table, _most_live(settings, table) if client else None))
        runner = Runner(
            Api(transport, say),
            job.source,
            spool,
            table=table,
            tier=settings.tier,
            journal=journal,
            ledger=ledger,
            options=options,
            say=say,
            keep_files=settings.batch_files == "keep",
            cancelling=cancelling,
            client=client,
            due=due,
        )
        with signals(runner, say) as interrupted:
            async with watched(runner, Shown(lambda: runner.queues, client), watcher):
                await runner.run()
        spare = None
        if due is not None and not runner.tally.left and not runner.stopped:
            ledger.left_until(0)
            spare = due - asyncio.get_running_loop().time()
        return summarise(
            runner.tally,
            client.count if client else Count(),
            client.snapshot() if client else (),
            runner.stopped,
            in_doubt=len(journal.in_doubt),
            failed_before=journal.failed,
            interrupted=bool(interrupted),
            spare=spare,
        )


def _most_live(settings: Settings, table: Table) -> Callable[[str], float]:
    """Return the most tokens that the live API can charge a request of a lane."""
    limits = limits_of(settings, table)

    @cache
    def most(lane: str) -> float:
        return min((limit.amount for limit in limits(lane) if limit.unit == "tokens"), default=math.inf)

    return most


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
    if settings.azure_api_version is not None:
        raise BadSettings("azure_api_version", "is set", "Azure's batches are another API; run without --via batch")
    return job.output
