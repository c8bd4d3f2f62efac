"""One run from beginning to end: the files, the client, the runner, the signals, and what it came to."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratelimit.compose import make_client, make_table
from ratelimit.jobs import report
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.runner import Options, Runner, Stopped
from ratelimit.jobs.source import Source
from ratelimit.jobs.summary import Summary, summarise
from ratelimit.limits.bucket import DAY
from ratelimit.settings import Settings
from ratelimit.wire.client import Client

Say = Callable[[str], None]
"""Tells the person at the terminal something, in one line."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run."""

    source: Source
    output: Path | None  # None: standard output, from which nothing can be resumed
    options: Options
    retry_failed: bool = False
    report: Path | None = None


class Watcher:
    """Is shown a run while it goes on; this one does not look."""

    async def watch(self, runner: Runner, client: Client) -> None:
        """Show the run until cancelled."""


async def run(job: Job, settings: Settings, *, say: Say, watcher: Watcher | None = None) -> Summary:
    """Run a job to its end, or until something stops it."""
    table = make_table(settings)
    async with AsyncExitStack() as opened:
        journal = opened.enter_context(Journal(job.output)) if job.output else None
        spent: dict[str, dict[str, float]] = {}
        elapsed = 0.0
        if journal:
            journal.recover(retry_failed=job.retry_failed)
            _report_doubt(journal, say)
            spent, elapsed = _spent(journal)
        client = await opened.enter_async_context(make_client(settings, table=table, spent=spent, elapsed=elapsed))
        runner = Runner(client, job.source, table=table, journal=journal, options=job.options)
        watching = asyncio.create_task((watcher or Watcher()).watch(runner, client))
        with _signals(runner, say) as interrupted:
            try:
                await runner.run()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        summary = summarise(
            runner.tally,
            client.count,
            client.snapshot(),
            runner.stopped,
            in_doubt=len(journal.in_doubt) if journal else 0,
            interrupted=bool(interrupted),
        )
        if job.report:
            report.write(job.report, summary, runner.tally)
            say(f"report   {job.report}")
        return summary


def _report_doubt(journal: Journal, say: Say) -> None:
    doubtful = journal.in_doubt
    if doubtful:
        shown = ", ".join(doubtful[:10]) + (f" and {len(doubtful) - 10:,} more" if len(doubtful) > 10 else "")
        was = "request was" if len(doubtful) == 1 else "requests were"
        say(f"{len(doubtful):,} {was} in flight when the last run ended; they may have been billed: {shown}")


def _spent(journal: Journal) -> tuple[dict[str, dict[str, float]], float]:
    """Return what earlier runs have spent of each limit, and how long ago that was."""
    spent, at = journal.spent
    if not spent:
        return {}, 0.0
    since = journal.sent_since_spent  # by whichever lane: too much is safe, and headers will tell
    counted = {
        lane: {name: missing + (since if name.endswith(("RPM", "RPD")) else 0) for name, missing in limits.items()}
        for lane, limits in spent.items()
    }
    return counted, min(max(time.time() - at, 0.0), 2 * DAY)


@contextmanager
def _signals(runner: Runner, say: Say) -> Iterator[list[int]]:
    """Let the first signal stop the run in order, and the second at once."""
    loop, seen = asyncio.get_running_loop(), list[int]()

    def caught(number: int) -> None:
        seen.append(number)
        if len(seen) == 1:
            say("stopping: what is in flight is waited for; once more to leave at once")
            runner.stop(Stopped("the run was interrupted; the same command continues it"))
        else:
            runner.leave()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, caught, number)
    try:
        yield seen
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
