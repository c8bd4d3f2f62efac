"""The live panel as a page: one static file, and a stream of how the run stands.

Every message is the whole picture, so a page that comes late, or lost the line for a while, shows the same as one that
was there from the beginning. The page writes what it is told as text, never as markup.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from functools import cache
from hashlib import sha256
from importlib.resources import files
from math import ceil
from socket import socket
from typing import Any

import msgspec

from ratelimit.jobs.figures import duration, money, per_minute
from ratelimit.jobs.job import Sending, Watched, Watcher
from ratelimit.jobs.standing import Standing, binding, look
from ratelimit.jobs.tally import Tally

_EVERY = 1.0  # seconds
_POINTS = 120  # of a line; a phone shows no more


class Dashboard(Watcher):
    """Serves the page until the run ends, which is the last thing it tells."""

    def __init__(self, taken: socket) -> None:
        self._taken = taken

    async def watch(self, run: Watched, client: Sending) -> None:
        """Serve until cancelled."""
        from ratelimit.watch.serving import served  # noqa: PLC0415 - a web server, for those who asked for a page

        over = asyncio.Event()

        async def follow() -> AsyncIterator[str]:
            while not over.is_set():
                yield state(look(run, client), run.tally)
                try:
                    async with asyncio.timeout(_EVERY):
                        await over.wait()
                except TimeoutError:
                    pass
            yield state(look(run, client), run.tally)

        async with served(self._taken, {"/": page}, {"/events": follow}):
            try:
                await asyncio.get_running_loop().create_future()  # until cancelled
            finally:
                over.set()


@cache
def page() -> Any:
    """Return the page, which may run its own script and load nothing."""
    from ratelimit.watch.serving import Page  # noqa: PLC0415 - as above

    text = files("ratelimit.jobs").joinpath("dashboard.html").read_text(encoding="utf-8")
    policy = (
        f"script-src {_digest('script', text)}; style-src {_digest('style', text)}; connect-src 'self'; img-src data:"
    )
    return Page("text/html; charset=utf-8", text, policy)


def _digest(tag: str, text: str) -> str:
    (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    return f"'sha256-{b64encode(sha256(inside.encode()).digest()).decode()}'"


def state(run: Standing, tally: Tally) -> str:
    """Return everything the page shows, as a line of JSON."""
    facts = {
        "answered": f"{run.done:,}" + (f" of {run.total:,}" if run.total else ""),
        "failed": f"{run.failed:,}",
        "to go": duration(run.to_go) if run.to_go else "",
        "a minute": "" if run.rate is None else per_minute(run.rate),
        "cost": money(run.cost),
        "cost in all, about": money(run.projected) if run.projected and run.left else "",
        "time": duration(run.seconds),
        "in flight, waiting": f"{run.in_flight:,}, {run.waiting:,}",
        "sent again": f"{run.retried:,}",
        "refused by a limit": f"{run.refused:,}",
        "tokens in": f"{run.input_tokens:,}",
        "tokens out": f"{run.output_tokens:,}",
    }
    if not run.begun:
        facts = {"lines looked at": f"{run.looked_at:,}"}
    shown = {
        "title": run.limited_by,
        "tone": "bad" if run.down or run.stopped else "done" if run.ended else "",
        "ended": run.ended,
        "why": run.stopped or run.beside,
        "part": run.part,
        "facts": {name: text for name, text in facts.items() if text},
        "gauges": _gauges(run),
        "charts": _charts(run, tally),
        "errors": sorted(run.failures.items(), key=lambda each: -each[1])[:20],
    }
    return msgspec.json.encode(shown).decode()


def _gauges(run: Standing) -> list[dict[str, Any]]:
    return [
        {
            "lane": lane.name,
            "name": limit.name,
            "used": min(max(limit.used_last_minute, 0.0), 1.0),
            "of": f"of {limit.limit:,.0f}",
            "binding": binding(lane) == limit.name,
            "note": f"somebody else takes {1 - limit.share:.0%}" if limit.share < 0.9 else "",
        }
        for lane in run.lanes
        for limit in lane.limits
    ]


def _charts(run: Standing, tally: Tally) -> list[dict[str, Any]]:
    """Return what went out over time, against what may; the stretch that is not over yet is left out."""
    whole = slice(None) if run.ended else slice(-1)
    caps = {
        name: sum(limit.limit for lane in run.lanes if (limit := lane.strictest.get(name))) for name in ("RPM", "TPM")
    }
    charts = [
        ("requests sent in a minute", tally.in_a_minute(lambda point: point.sent)[whole], caps["RPM"]),
        (
            "tokens in a minute, in and out, as billed",
            tally.in_a_minute(lambda point: point.input_tokens + point.output_tokens)[whole],
            caps["TPM"],
        ),
    ]
    return [
        {"name": name, "values": _thinned(values), "cap": cap, "long": duration(len(values) * tally.stretch)}
        for name, values, cap in charts
        if values
    ]


def _thinned(values: list[float]) -> list[float]:
    """Return every so-maniest value, the last among them."""
    return values[:: -ceil(len(values) / _POINTS)][::-1]
