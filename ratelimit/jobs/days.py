"""Says before a job starts that a day's limit will hold it up, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from ratelimit.admission.scheduler import Scheduler
from ratelimit.jobs.figures import duration
from ratelimit.limits.bucket import DAY


def foretell(lanes: Mapping[str, tuple[int, float]], scheduler: Scheduler, *, pause: bool) -> Iterator[str]:
    """Yield a sentence for each day's limit that is less than what a lane still has to send."""
    now = asyncio.get_running_loop().time()
    for name, (requests, tokens) in lanes.items():
        for bucket in scheduler.lane(name).ledger.quota.buckets:
            limit, left = bucket.limit, bucket.level(now)
            need = requests if limit.unit == "requests" else tokens if limit.unit == "tokens" else 0
            if limit.window != DAY or need <= left:
                continue
            then = (
                "the run stops when they are used up"
                if pause
                else "the run waits for them, and may be stopped and continued at any time"
            )
            yield (
                f"{name} allows {limit.amount:,.0f} {limit.unit} a day, of which {max(left, 0):,.0f} are left now; "
                f"{need:,.0f} take about {duration((need - left) / limit.rate)}: {then}"
            )
