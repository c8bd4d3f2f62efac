"""The metrics of a run, for Prometheus to read while it lasts."""

from __future__ import annotations

import asyncio
from socket import socket

from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.jobs.standing import Standing, look
from ratelimit.metrics import CONTENT_TYPE, Metrics, family


class Exposition(Watcher):
    """Serves what an observer has counted, and how far the run is."""

    def __init__(self, taken: socket, metrics: Metrics) -> None:
        self._taken = taken
        self._metrics = metrics

    async def watch(self, run: Watched, client: Sending) -> None:
        """Serve until cancelled."""
        from ratelimit.watch.serving import Page, served  # noqa: PLC0415 - a web server, where one is wanted

        def page() -> Page:
            return Page(CONTENT_TYPE, self._metrics.text() + _rows(look(run, client)))

        self._metrics.follow(client)
        async with served(self._taken, {"/metrics": page}):
            await asyncio.get_running_loop().create_future()  # until cancelled


def _rows(run: Standing) -> str:
    outcomes = {"answered": run.done, "failed": run.failed, "left": run.left}
    rows = [("", (("outcome", name),), float(count)) for name, count in outcomes.items() if count is not None]
    to_go = [("", (), run.to_go)] if run.to_go is not None else []
    return family("ratelimit_rows", "gauge", "Rows of the input by what has become of them.", rows) + family(
        "ratelimit_eta_seconds", "gauge", "Seconds until the run ends, if it goes on like that.", to_go
    )
