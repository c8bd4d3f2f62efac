"""Jobs of batches in one process: a mock that echoes, runs, and how full the mock says its queue was."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from jobbing import Json, Place, ask, batch_line

from ratelimit.jobs.batches.job import run
from ratelimit.jobs.budget import Options
from ratelimit.jobs.job import Job, Watcher
from ratelimit.jobs.source import Source
from ratelimit.jobs.summary import Summary
from ratelimit.settings import load_settings
from ratelimit.testing.mock import MockServer
from ratelimit.testing.mock.faults import PROBLEMS
from ratelimit.testing.mock.refusals import Refused
from ratelimit.testing.mock.stats import Record

ORGANIZATION = "org-mock"


@dataclass
class Batching(Place):
    """A directory with a job of batches in it."""

    def ask_for(self, count: int, *, words: int = 0, **more: Any) -> None:
        """Write so many requests, each of which asks for its own number."""
        body = " understanding" * words
        self.write(batch_line(f"row-{n}", ask(f"what is {n:06}?{body}", **more)) for n in range(count))

    def queue_of(self, tokens: int) -> Path:
        """A tier table in which the queue holds so many tokens."""
        path = self.path / "queue.toml"
        path.write_text(f"[models.gpt-4o-mini.tiers.tier-1]\nrpm = 500\ntpm = 200000\nbatch_queue = {tokens}\n")
        return path

    async def batch(
        self,
        mock: MockServer,
        options: Options | None = None,
        *,
        cancelling: bool = False,
        both_routes: bool = False,
        watcher: Watcher | None = None,
        retry_failed: bool = False,
        **settings: Any,
    ) -> Summary:
        """Run the job once, or on from where it was."""
        settings = {"base_url": mock.base_url, "api_key": "sk-test", "tier": mock.service.catalogue.tier, **settings}
        job = Job(Source(str(self.requests)), self.output, options or Options(), retry_failed)
        return await run(
            job,
            load_settings(**settings),
            say=self.said.append,
            cancelling=cancelling,
            both_routes=both_routes,
            watcher=watcher,
        )

    def expect_everything(self, count: int, *, words: int = 0) -> None:
        """One answer per id, and to its own question."""
        body = " understanding" * words
        assert self.answers() == {f"row-{n}": f"what is {n:06}?{body}" for n in range(count)}


def batches(mock: MockServer) -> list[Json]:
    """What the mock has of batches."""
    return [batch.about for batch in mock._batches._batches.values()]


def files(mock: MockServer) -> list[str]:
    """The names of the files that the mock holds."""
    return [stored.about["filename"] for stored in mock._files._stored.values()]


@dataclass
class Watch:
    """How full the queue of a model was, every three seconds, as the mock counts it."""

    mock: MockServer
    family: str = "gpt-4o-mini"
    levels: list[int] = field(default_factory=list)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            organization = next(iter(self.mock._batches._enqueued), (ORGANIZATION,))[0]
            self.levels.append(self.mock._batches.enqueued(organization, self.family))
            await asyncio.sleep(3.0)


def statuses(mock: MockServer) -> Counter[str]:
    """How many batches have come to which end."""
    return Counter(about["status"] for about in batches(mock))


def codes(mock: MockServer) -> Counter[str]:
    """Why validation has failed."""
    return Counter(problem["code"] for about in batches(mock) if about["errors"] for problem in about["errors"]["data"])


def spoil(
    monkeypatch: pytest.MonkeyPatch, mock: MockServer, decide: Callable[[int, str, str], str | float | None]
) -> None:
    """Have the files and batches of a mock go wrong: by number, method and path.

    A number delays the answer by so many seconds, once what was asked is done; a word is a fault's, before it is done.
    """
    whole, asked = mock._desk.answer, [0]

    async def answer(request: web.BaseRequest, record: Record) -> web.StreamResponse:
        asked[0] += 1
        what = decide(asked[0], request.method, request.path.removeprefix("/v1/"))
        if isinstance(what, str):
            raise Refused(PROBLEMS[what])
        reply = await whole(request, record)
        if what is not None:
            await asyncio.sleep(what)
        return reply

    monkeypatch.setattr(mock._desk, "answer", answer)
