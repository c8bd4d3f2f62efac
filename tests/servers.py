"""A scripted service for the admission tests: four ways of counting, each in its own naive way.

It shares no code with `ratelimit.limits`: a level that is topped up, a list of timestamps, a counter per window.
Requests travel for a while, are judged on arrival, and answered later; headers say what the service's own state says.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ratelimit.admission.scheduler import Scheduler
from ratelimit.admission.turn import Turn
from ratelimit.limits.bucket import Limit
from ratelimit.limits.headers import Observed, Reading, Refusal

Seconds = Callable[[], float]


class Counter(Protocol):
    """One limit of the service, and what has been counted against it."""

    limit: float

    def room(self, amount: float, now: float) -> bool: ...

    def charge(self, amount: float, now: float) -> None: ...

    def wait(self, amount: float, now: float) -> float: ...

    def shown(self, now: float) -> tuple[float, float]: ...


class Continuous:
    """A level, topped up at each look."""

    def __init__(self, limit: float, window: float) -> None:
        self.limit, self.window = limit, window
        self.level, self.looked = limit, 0.0

    def look(self, now: float) -> None:
        self.level = min(self.limit, self.level + (now - self.looked) * self.limit / self.window)
        self.looked = now

    def room(self, amount: float, now: float) -> bool:
        self.look(now)
        return amount <= self.level + 1e-6

    def charge(self, amount: float, now: float) -> None:
        self.level -= amount

    def wait(self, amount: float, now: float) -> float:
        return (amount - self.level) * self.window / self.limit

    def shown(self, now: float) -> tuple[float, float]:
        """Remaining and reset, rounded as the service rounds them."""
        self.look(now)
        return math.floor(self.level), math.floor((self.limit - self.level) * self.window / self.limit * 1000) / 1000


class SlidingLog:
    """Every request of the last window, remembered."""

    def __init__(self, limit: float, window: float) -> None:
        self.limit, self.window = limit, window
        self.log: deque[tuple[float, float]] = deque()
        self.used = 0.0

    def look(self, now: float) -> None:
        while self.log and self.log[0][0] <= now - self.window:
            self.used -= self.log.popleft()[1]

    def room(self, amount: float, now: float) -> bool:
        self.look(now)
        return self.used + amount <= self.limit + 1e-6

    def charge(self, amount: float, now: float) -> None:
        self.log.append((now, amount))
        self.used += amount

    def wait(self, amount: float, now: float) -> float:
        return self.log[0][0] + self.window - now

    def shown(self, now: float) -> tuple[float, float]:
        self.look(now)
        return math.floor(self.limit - self.used), self.log[-1][0] + self.window - now if self.log else 0.0


class FixedWindow:
    """A counter that starts again with each window."""

    def __init__(self, limit: float, window: float, *, offset: float = 17.0) -> None:
        self.limit, self.window, self.offset = limit, window, offset
        self.number, self.used = -1, 0.0

    def look(self, now: float) -> None:
        number = int((now + self.offset) // self.window)
        if number != self.number:
            self.number, self.used = number, 0.0

    def room(self, amount: float, now: float) -> bool:
        self.look(now)
        return self.used + amount <= self.limit + 1e-6

    def charge(self, amount: float, now: float) -> None:
        self.used += amount

    def wait(self, amount: float, now: float) -> float:
        return (self.number + 1) * self.window - self.offset - now

    def shown(self, now: float) -> tuple[float, float]:
        self.look(now)
        return math.floor(self.limit - self.used), self.wait(0, now)


class Quantised(Continuous):
    """A minute's bucket in the headers, and behind it a counter for each second."""

    def __init__(self, limit: float, window: float) -> None:
        super().__init__(limit, window)
        self.second = FixedWindow(limit / window, 1.0, offset=0.0)

    def room(self, amount: float, now: float) -> bool:
        return super().room(amount, now) and self.second.room(amount, now)

    def charge(self, amount: float, now: float) -> None:
        super().charge(amount, now)
        self.second.charge(amount, now)

    def wait(self, amount: float, now: float) -> float:
        return self.second.wait(amount, now)


KINDS: dict[str, Callable[[float, float], Counter]] = {
    "bucket": Continuous,
    "sliding": SlidingLog,
    "fixed": FixedWindow,
    "quantised": Quantised,
}


@dataclass
class Service:
    """The service: its limits by unit and window, and what it has seen of us and of a rival."""

    limits: dict[tuple[str, float], float]
    kind: str = "bucket"
    speaks: bool = True
    tells_wait: bool = True
    retry_after: float | None = None
    admitted: list[tuple[float, float]] = field(default_factory=list)
    refused: list[tuple[float, str, float]] = field(default_factory=list)
    rival: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counters = {
            (unit, window): (KINDS[self.kind] if window <= 60 else Continuous)(limit, window)
            for (unit, window), limit in self.limits.items()
        }

    @classmethod
    def of(cls, limits: Iterable[Limit], **how: Any) -> Service:
        """A service that enforces what a table of limits says."""
        return cls({(limit.unit, limit.window): limit.amount for limit in limits}, **how)

    def judge(self, tokens: float, now: float) -> Observed | None:
        """Admit a request, or return what the refusal says."""
        if (short := self._take(tokens, now)) is not None:
            self.refused.append((now, *short))
            return self._refusal(*short, tokens, now)
        self.admitted.append((now, tokens))
        return None

    def judge_rival(self, tokens: float, now: float) -> None:
        """Let somebody else try to take as much."""
        if self._take(tokens, now) is None:
            self.rival.append((now, tokens))

    def _take(self, tokens: float, now: float) -> tuple[str, float] | None:
        amounts = {"requests": 1.0, "tokens": tokens}
        for (unit, window), counter in self.counters.items():
            if amounts[unit] and not counter.room(amounts[unit], now):
                return unit, window
        for (unit, _), counter in self.counters.items():
            counter.charge(amounts[unit], now)
        return None

    def headers(self, now: float) -> Observed:
        if not self.speaks:
            return Observed()
        shown: dict[str, Reading] = {}
        for (unit, _), counter in sorted(self.counters.items(), key=lambda entry: entry[0][1]):
            remaining, reset = counter.shown(now)
            shown[unit] = Reading(unit, counter.limit, remaining, reset)  # the longest window is the one shown
        return Observed(readings=tuple(shown.values()))

    def _refusal(self, unit: str, window: float, tokens: float, now: float) -> Observed:
        counter, amount = self.counters[unit, window], tokens if unit == "tokens" else 1.0
        wait = math.floor(max(counter.wait(amount, now), 0) * 1000) / 1000
        if not self.speaks:
            return Observed(retry_after=wait if self.tells_wait else None)
        remaining, _ = counter.shown(now)
        refusal = Refusal(
            kind="reached",
            unit=unit,
            window=window,
            limit=counter.limit,
            used=counter.limit - remaining,
            requested=amount,
            wait=wait,
            model="m",
            bucket=None,
        )
        return Observed(
            readings=self.headers(now).readings,
            retry_after=self.retry_after or max(1, math.ceil(wait)),
            refusal=refusal,
        )

    def count(self, start: float, end: float) -> int:
        """Requests of ours admitted in a stretch of time."""
        return sum(start <= at < end for at, _ in self.admitted)

    def tokens(self, start: float, end: float) -> float:
        """Tokens of ours admitted in a stretch of time, as the service charged them."""
        return sum(tokens for at, tokens in self.admitted if start <= at < end)

    def refusals(self, start: float = 0.0, end: float = math.inf) -> int:
        """Refusals of ours in a stretch of time."""
        return sum(start <= at < end for at, *_ in self.refused)


@dataclass
class Network:
    """How long things are on the way, and how long an answer takes."""

    one_way: Seconds
    reply: Seconds

    @classmethod
    def rough(cls, seed: int) -> Network:
        """One way 20 to 900 ms; answers after 0.3 to 30 s, lognormal."""
        rng = random.Random(seed)
        return cls(lambda: rng.uniform(0.02, 0.9), lambda: min(max(rng.lognormvariate(1.1, 0.9), 0.3), 30.0))

    @classmethod
    def steady(cls, one_way: float = 0.05, reply: float = 1.0) -> Network:
        return cls(lambda: one_way, lambda: reply)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: what we believe it costs, and what the service will charge."""

    estimate: float = 0.0
    charged: float = 0.0


def of_tokens(tokens: float, *, over: float = 1.0) -> Ask:
    """A request of so many tokens, over-estimated by a factor."""
    return Ask(tokens * over, tokens)


async def send(scheduler: Scheduler, service: Service, network: Network, ask: Ask) -> None:
    """One request until it is answered, as a client would send it."""
    arrival = scheduler.arrive()
    await until_answered(
        lambda: scheduler.reserve("m", tokens=ask.estimate, arrival=arrival), service, network, ask.charged
    )


def _nothing() -> None: ...


async def until_answered(
    turns: Callable[[], Turn],
    service: Service,
    network: Network,
    charged: float,
    *,
    begun: Callable[[], None] = _nothing,
    admitted: Callable[[], None] = _nothing,
) -> None:
    """Take turn after turn until the service has answered; tells of the first, and of the one let in."""
    loop = asyncio.get_running_loop()
    while True:
        async with turns() as turn:
            begun()
            begun = _nothing
            await asyncio.sleep(network.one_way())
            refusal = service.judge(charged, loop.time())
            if refusal is None:
                admitted()
                headers = service.headers(loop.time())
                await asyncio.sleep(network.reply())
                turn.observe(headers)
                turn.used()
                return
            await asyncio.sleep(network.one_way())
            turn.refused(refusal)


async def flood(
    scheduler: Scheduler,
    service: Service,
    network: Network,
    until: float,
    *,
    asks: Callable[[], Ask] = Ask,
    backlog: int = 200,
    every: float = 0.25,
) -> None:
    """Keep so many waiting in the queue until the clock says `until`."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    while loop.time() < until:
        waiting = sum(lane.waiting for lane in scheduler.snapshot())
        for _ in range(backlog - waiting):
            task = asyncio.create_task(send(scheduler, service, network, asks()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(min(every, until - loop.time()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def rival_steadily(service: Service, ask: float, pause: float, until: float) -> None:
    """Somebody else on the key who sends at even distances."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        service.judge_rival(ask, loop.time())
        await asyncio.sleep(pause)


async def rival_in_bursts(
    service: Service, ask: float, pause: float, until: float, *, every: float = 30.0, spread: float = 3.0
) -> None:
    """Somebody else on the key who sends the same in bursts: what is due every 30 s within 3 s."""
    loop = asyncio.get_running_loop()
    many = round(every / pause)
    while loop.time() < until:
        for _ in range(many):
            service.judge_rival(ask, loop.time())
            await asyncio.sleep(spread / many)
        await asyncio.sleep(every - spread)
