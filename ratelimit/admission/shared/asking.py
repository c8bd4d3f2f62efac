"""How a ledger asks its store: when, who it says it is, and how long it waits for the answer.

There is no task that lives as long as the ledger. A timer starts one for each question, so a program that ends, or an
event loop that is left, has nothing to wind up.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Task, TimerHandle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf

from ratelimit.admission.shared.mirror import Mark
from ratelimit.admission.shared.store import Answer, Ask, Store
from ratelimit.limits.bucket import Bucket

TIMEOUT = 0.3
"""Seconds for an answer."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Who shares what, and how."""

    group: str
    lane: str
    """What people call it."""
    holder: str
    """Which nobody else is called."""
    name: str
    """What people call the program."""
    weight: float = 1.0
    pace: float = 10.0
    stops: bool = False
    """Whether nothing is sent while the store is away."""


@dataclass(slots=True)
class Sent:
    """A question under way: what of our own state it has taken along."""

    ask: Ask
    marks: dict[Bucket, Mark]
    give: dict[str, float]
    spent: dict[str, float]
    ends: float
    used: dict[str, float] = field(default_factory=dict)  # of the purse, while it is under way


class Caller:
    """Puts a ledger's questions to a store, one at a time."""

    def __init__(
        self,
        store: Store,
        member: Membership,
        loop: AbstractEventLoop,
        boottime: Callable[[], float],
        exchange: Callable[[], Awaitable[None]],
    ) -> None:
        self.not_before: float = -inf  # when asking can help
        self._store = store
        self._member = member
        self._loop = loop
        self._boottime = boottime
        self._exchange = exchange
        self._heard = (0.0, 0.0)  # the store's time, and when it was told
        self._task: Task[None] | None = None
        self._timer: TimerHandle | None = None
        self._due = inf
        self._asked_for = inf
        self._closed = False

    def call_by(self, moment: float) -> None:
        """Ask at `moment` or earlier, but not before it can help."""
        if self._closed:
            return
        if self._task is not None:  # there is an answer to come first
            self._asked_for = min(self._asked_for, moment)
            return
        moment = max(moment, self.not_before)
        if moment < self._due:
            if self._timer:
                self._timer.cancel()
            self._due = moment
            self._timer = self._loop.call_at(moment, self._call)

    def _call(self) -> None:
        self._timer, self._due = None, inf
        self._task = self._loop.create_task(self._run(), name=f"lease of {self._member.lane}")

    async def _run(self) -> None:
        try:
            await self._exchange()
        finally:
            self._task = None
            asked_for, self._asked_for = self._asked_for, inf
            if asked_for < inf:
                self.call_by(asked_for)

    async def lease(self, ask: Ask) -> Answer:
        """Ask, and once more if it turns out that the store's clock has jumped."""
        async with asyncio.timeout(TIMEOUT):
            store_time, heard_at = self._heard
            ask.at = round(store_time + (self._boottime() - heard_at) * 1e6) if store_time else 0
            ask.jump = 0
            answer = await self._store.lease(self._member.group, ask)
            if answer.late:  # yet the answer is here in time, so the question was
                ask.jump = answer.now - ask.at
                answer = await self._store.lease(self._member.group, ask)
        self._heard = (answer.now, self._boottime())
        return answer

    async def aclose(self) -> None:
        """Ask no more by itself."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
            self._timer, self._due = None, inf
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
