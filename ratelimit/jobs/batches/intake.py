"""How the rows of the input come into the spool: those that are left, be they in a batch already or not."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterable

from ratelimit.errors import JobStopped, RateLimitError, RequestInvalid
from ratelimit.jobs.batches.following import Flight
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.budget import Options
from ratelimit.jobs.feeding import rows
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.preflight import Check, Findings, InputRefused, preflight
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.tally import Tally


async def look_through(source: Source, check: Check, journal: Journal, options: Options, tally: Tally) -> Findings:
    """Look at every line before anything is enqueued; raises for what cannot be sent."""
    found = Findings()
    for found in preflight(source, check, journal, force=options.force, skip_bad=options.skip_bad):
        tally.looked_at = found.rows
        await asyncio.sleep(0)
    if found.bad and not options.skip_bad:
        raise InputRefused(source.path, found)
    journal.looked_through()
    return found


async def take_in(
    source: Source,
    spool: Spool,
    journal: Journal,
    found: Findings,
    adopted: Iterable[Flight],
    *,
    check: Check,
    limit: int | None,
    give_up: Callable[[Row, RateLimitError], None],
) -> list[array[int]]:
    """Put every row that is left into the spool; returns the places of those that are in no batch, by group."""
    flights = {key: flight for flight in adopted for key in flight.about.keys}
    left: list[array[int]] = []
    taken = 0
    async for row in rows(source):
        if row.place >= found.end:  # it was appended since
            break
        problem = found.problem(row, check)
        row = found.named(row)  # noqa: PLW2901 - a twin goes by another name
        if journal.is_done(row):
            continue
        try:
            if problem:
                raise RequestInvalid(problem, "mend this line of the input")
            flight = flights.get(row.key)
            if flight is None and limit is not None and taken >= limit:
                continue
            group, place = spool.add(row)
        except JobStopped:  # the row is not to blame
            raise
        except RateLimitError as error:
            give_up(row, error)
            continue
        if flight:
            flight.places.add(row.key, group, place)
            continue
        taken += 1
        while len(left) <= group:
            left.append(array("Q"))
        left[group].append(place)
    return left
