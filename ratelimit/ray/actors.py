"""The actors of the pool: rows of a block in, the same rows with two columns more out.

A worker's requests run on a loop of its own. Ray's loop only waits for them: it stands still whenever what is made is
taken more slowly than it is made, and nobody would renew a lease or read a reply meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-not-found]  # Ray Data brings it

from ratelimit.admission.blocking import Background
from ratelimit.compose import make_client
from ratelimit.jobs.checkpoint import Checkpoint
from ratelimit.jobs.worker import Worker
from ratelimit.limits.tiers import Table
from ratelimit.ray.asking import Asking
from ratelimit.ray.luggage import Luggage
from ratelimit.ray.store import RayStore


@dataclass(frozen=True, slots=True)
class Plan:
    """What every actor of a job has to know, but for who pays."""

    asking: Asking
    table: Table
    checkpoint: Path
    retry_failed: bool
    result: str
    error: str


class Answering:
    """One worker, as Ray Data makes and calls it."""

    def __init__(self, plan: Plan, luggage: Luggage) -> None:
        self._plan = plan
        self._background = Background()
        self._checkpoint = Checkpoint(plan.checkpoint, retry_failed=plan.retry_failed)
        settings = luggage.settings
        store = RayStore() if settings.origin("shared") == "the default" else None
        self._client = make_client(settings, table=plan.table, store=store)
        self._background.run(self._client.__aenter__())
        self._worker = Worker(self._client, self._checkpoint)

    async def __call__(self, rows: Any) -> Any:
        """Return a table of rows with what became of each."""
        asked = [self._plan.asking.row(columns) for columns in rows.to_pylist()]
        outcomes = await asyncio.wrap_future(self._background.submit(self._worker.answer(asked)))
        for name, values in (
            (self._plan.result, [outcome.body for outcome in outcomes]),
            (self._plan.error, [outcome.error for outcome in outcomes]),
        ):
            if name in rows.column_names:
                rows = rows.drop_columns([name])
            rows = rows.append_column(name, pa.array(values, pa.string()))
        return rows

    def __del__(self) -> None:  # what Ray calls when the pool has nothing more to do
        with suppress(AttributeError, RuntimeError):  # it was not begun, or the interpreter ends
            self._background.run(self._client.__aexit__(None, None, None))
            self._background.close()
            self._checkpoint.close()
