"""Several programs in one process, in virtual time: each with a scheduler of its own, all with one store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from servers import Ask, Network, Service, until_answered

from ratelimit.admission.events import Changed, Event, Notice
from ratelimit.admission.scheduler import Scheduler
from ratelimit.admission.shared.asking import Membership
from ratelimit.admission.shared.ledger import SharedLedger
from ratelimit.admission.shared.memory import MemoryStore
from ratelimit.admission.shared.store import NO_BURST, Answer, LaneSeen, LimitTold, StoreAway
from ratelimit.admission.shared.store import Ask as Question
from ratelimit.limits.bucket import Limit
from ratelimit.limits.drift import Change

QUESTION = Question(
    lane="m tier-1",
    holder="one",
    name="one",
    number=1,
    weight=1,
    lasts=1e6,
    at=0,
    jump=0,
    epoch=0,
    answered=True,
    priority=0,
    pace=10,
    units=["requests"],
    need=[1.0],
    want=[1.0],
    has=[0.0],
    keep=[0.0],
    total=[0.0],
    give=[0.0],
    spent=[0.0],
    limits=[LimitTold("requests", 60, "", 600, 1, 0, NO_BURST, 1)],
)


class Hands:
    """A clock that goes where it is set, in microseconds."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += round(seconds * 1e6)


class Line:
    """One program's way to the store, which can be cut."""

    def __init__(self, store: MemoryStore, latency: float = 0.002) -> None:
        self.store = store
        self.latency = latency
        self.calls = 0
        self.cut = False  # refused
        self.silent = False  # heard by nobody, answered by nobody

    async def check(self) -> None: ...

    async def lease(self, group: str, ask: Question) -> Answer:
        self.calls += 1
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if self.cut:
            raise StoreAway("connection refused")
        await asyncio.sleep(self.latency)
        return await self.store.lease(group, ask)

    async def peek(self) -> list[LaneSeen]:
        return await self.store.peek()

    async def aclose(self) -> None: ...


def wall_clock() -> MemoryStore:
    """A store whose clock is the loop's, a month on."""
    loop = asyncio.get_running_loop()
    return MemoryStore(lambda: round((loop.time() + 2.6e6) * 1e6))


@dataclass
class Alone:
    """Makes the one ledger of a program."""

    line: Line
    member: Membership

    async def check(self) -> None: ...

    def __call__(self, name: str, limits: Iterable[Limit], loop: asyncio.AbstractEventLoop) -> SharedLedger:
        return SharedLedger(self.line, self.member, limits, loop, loop.time)

    async def aclose(self) -> None: ...


class Program:
    """One program that sends as much as it may."""

    def __init__(
        self,
        number: int,
        store: MemoryStore,
        limits: Iterable[Limit],
        *,
        weight: float = 1.0,
        priority: float = 0,
        stops: bool = False,
    ) -> None:
        self.line = Line(store)
        self.priority = priority
        self.events: list[Event] = []
        self.admitted: list[float] = []
        member = Membership("g", "m tier-1", f"h{number}", f"program {number}", weight, stops=stops)
        self.scheduler = Scheduler(
            {"m": list(limits)},
            concurrency=100_000,
            observer=self.events.append,
            ledgers=Alone(self.line, member),
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, service: Service, network: Network, ask: Ask) -> None:
        clock = asyncio.get_running_loop().time
        arrival = self.scheduler.arrive()
        await until_answered(
            lambda: self.scheduler.reserve("m", tokens=ask.estimate, arrival=arrival, priority=self.priority),
            service,
            network,
            ask.charged,
            admitted=lambda: self.admitted.append(clock()),
        )

    async def flood(
        self, service: Service, network: Network, start: float, until: float, ask: Ask | None = None, backlog: int = 200
    ) -> None:
        """Keep so many waiting from `start` until the clock says `until`."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(start)
        while loop.time() < until:
            waiting = sum(lane.waiting for lane in self.scheduler.snapshot())
            for _ in range(backlog - waiting):
                task = asyncio.create_task(self.send(service, network, ask or Ask()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(min(0.25, until - loop.time()))
        await self.leave()

    async def leave(self) -> None:
        """End everything that is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self.line.silent:
            await self.scheduler.aclose()

    def count(self, start: float, end: float) -> int:
        return sum(start <= at < end for at in self.admitted)

    @property
    def notices(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice)]

    @property
    def changes(self) -> list[Change]:
        return [event.change for event in self.events if isinstance(event, Changed)]

    def drifts(self, least: float = 0) -> list[float]:
        return [change.after for change in self.changes if change.kind == "drift" and abs(change.after) > least]
