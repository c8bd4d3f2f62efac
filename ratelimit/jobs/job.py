"""One run from beginning to end: the files, the client, the runner, the signals, and what it came to."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ratelimit.admission.events import Observers
from ratelimit.admission.scheduler import LaneStatus
from ratelimit.compose import make_client, make_table
from ratelimit.errors import OutputUnusable, RateLimitError
from ratelimit.jobs import report
from ratelimit.jobs.budget import Options, Stopped
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.lines import beside
from ratelimit.jobs.runner import Runner, Say
from ratelimit.jobs.source import Source, digest
from ratelimit.jobs.summary import Summary, summarise
from ratelimit.jobs.tally import Tally
from ratelimit.limits.bucket import DAY
from ratelimit.settings import Settings
from ratelimit.wire.sender import Count


@dataclass(frozen=True, slots=True)
class Job:
    """What to run."""

    source: Source
    output: Path | None  # None: standard output, from which nothing can be resumed
    options: Options
    retry_failed: bool = False
    report: Path | None = None


class Watched(Protocol):
    """A run as it is seen from outside."""

    tally: Tally
    stopped: RateLimitError | None

    def standing(self) -> str:
        """Return what there is to say of it beside its tally and its lanes."""


class Sending(Protocol):
    """What a run sends by, as it is seen from outside."""

    @property
    def count(self) -> Count:
        """What has been sent, and what came of it."""

    @property
    def paused(self) -> bool:
        """Whether the service seems to be down."""

    def snapshot(self) -> tuple[LaneStatus, ...]:
        """Return how every lane stands."""


class Watcher:
    """Is shown a run while it goes on; this one does not look."""

    async def watch(self, run: Watched, client: Sending) -> None:
        """Show the run until cancelled."""


class Together(Watcher):
    """Several watchers of one run."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._watchers = tuple(watchers)

    async def watch(self, run: Watched, client: Sending) -> None:
        """Have all of them watch; one that fails takes none of the others along."""
        await asyncio.gather(*(each.watch(run, client) for each in self._watchers), return_exceptions=True)


@asynccontextmanager
async def watched(run: Watched, client: Sending, watcher: Watcher | None) -> AsyncIterator[None]:
    """Have a run watched, if anybody looks on."""
    watching = asyncio.create_task((watcher or Watcher()).watch(run, client))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Stoppable(Protocol):
    """A run that a signal can end."""

    def stop(self, why: RateLimitError) -> None:
        """End in order."""

    def leave(self) -> None:
        """End at once."""


async def run(
    job: Job, settings: Settings, *, say: Say, watcher: Watcher | None = None, observer: Observers = None
) -> Summary:
    """Run a job to its end, or until something stops it."""
    check_places(job)
    table = make_table(settings)
    async with AsyncExitStack() as opened:
        journal = opened.enter_context(Journal(job.output)) if job.output else None
        spent: dict[str, dict[str, float]] = {}
        elapsed = 0.0
        if journal:
            journal.recover(retry_failed=job.retry_failed)
            report_doubt(journal, say)
            spent, elapsed = spent_before(journal)
        client = make_client(settings, table=table, observer=observer, spent=spent, elapsed=elapsed)
        await opened.enter_async_context(client)
        runner = Runner(
            client,
            job.source,
            table=table,
            journal=journal,
            options=job.options,
            setup=_setup(job, settings),
            say=say,
            retry_failed=job.retry_failed,
        )
        with signals(runner, say) as interrupted:
            async with watched(runner, client, watcher):
                await runner.run()
        summary = summarise(
            runner.tally,
            client.count,
            client.snapshot(),
            runner.stopped,
            in_doubt=len(journal.in_doubt) if journal else 0,
            failed_before=journal.failed if journal else 0,
            interrupted=bool(interrupted),
        )
        if job.report:
            _write_report(job.report, summary, runner, say)
        return summary


def check_places(job: Job) -> None:
    """Raise for what would be found out only after the work, or would harm the input."""
    job.source.check()
    taken = {_real(job.source.path): "it is the input"} if job.source.path != "-" else {}
    if job.output:
        for path in (job.output, *(beside(job.output, kind) for kind in ("errors", "journal", "batches"))):
            if _real(path) in taken:
                raise OutputUnusable(str(path), taken[_real(path)], "choose another output")
            taken[_real(path)] = "results go there"
    if job.report:
        if _real(job.report) in taken:
            raise OutputUnusable(str(job.report), taken[_real(job.report)], "choose another place for the report")
        if not job.report.parent.is_dir():
            why = f"there is no directory {job.report.parent}"
            raise OutputUnusable(str(job.report), why, "create it first")


def _real(path: Path | str) -> str:
    try:
        return os.path.realpath(path)  # which a loop of links is no trouble to
    except OSError:  # the working directory is gone
        return str(path)


def _setup(job: Job, settings: Settings) -> int:
    """Return a number for all that decides whether an input is in order."""
    tiers = settings.tiers_file
    state = (tiers.stat().st_size, tiers.stat().st_mtime_ns) if tiers else None
    caps = (settings.tier, settings.rpm, settings.tpm, settings.rpd, settings.base_url)
    return digest(repr((job.source, caps, tiers, state)).encode("utf-8", "surrogateescape"))


def _write_report(path: Path, summary: Summary, runner: Runner, say: Say) -> None:
    try:
        report.write(path, summary, runner.tally)
        say(f"report   {path}")
    except OutputUnusable as error:  # the work is done, and its summary worth more than a page about it
        say(str(error))


def report_doubt(journal: Journal, say: Say) -> None:
    """Say what was sent when the last run ended."""
    doubtful = journal.in_doubt
    if doubtful:
        shown = ", ".join(doubtful[:10]) + (f" and {len(doubtful) - 10:,} more" if len(doubtful) > 10 else "")
        was = "request was" if len(doubtful) == 1 else "requests were"
        say(f"{len(doubtful):,} {was} in flight when the last run ended; they may have been billed: {shown}")


def spent_before(journal: Journal) -> tuple[dict[str, dict[str, float]], float]:
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
def signals(runner: Stoppable, say: Say) -> Iterator[list[int]]:
    """Let the first signal stop the run in order, and the second at once.

    A terminal that goes away may tell of it several times, and nobody is there to mean the second. What was started
    with `nohup` goes on without it.
    """
    loop, seen = asyncio.get_running_loop(), list[int]()

    def caught(number: int) -> None:
        seen.append(number)
        if len(seen) == 1:
            try:
                say("stopping: what is in flight is waited for; once more to leave at once")
            finally:
                runner.stop(Stopped("the run was interrupted; the same command continues it"))
        elif number != signal.SIGHUP:
            runner.leave()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, caught, number)
    try:
        yield seen
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
