"""Who goes next and when, over all lanes; the only place that waits for capacity.

A lane is made when its name is first asked for. Lanes share nothing but the arrival numbers, so none blocks another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import isasyncgenfunction, isawaitable, isgeneratorfunction
from itertools import count
from typing import ParamSpec, Protocol, TypeVar

from ratelimit.admission.events import Audience, Observers
from ratelimit.admission.lane import Lane
from ratelimit.admission.ledger import Ledger, LocalLedger
from ratelimit.admission.log import Log
from ratelimit.admission.turn import Turn
from ratelimit.errors import BadClient, printable
from ratelimit.limits.bucket import Limit

P = ParamSpec("P")
R = TypeVar("R")

_COUNTED = {"requests", "tokens"}

Limits = Callable[[str], Iterable[Limit]]
"""What a lane of this name may do; raises for a name it does not know."""


class Ledgers(Protocol):
    """Makes the ledgers of lanes whose limits other programs share."""

    async def check(self) -> None:
        """Raise where they cannot be shared."""
        ...

    def __call__(self, name: str, limits: Iterable[Limit], loop: asyncio.AbstractEventLoop) -> LocalLedger:
        """Return the ledger of a lane."""
        ...

    async def aclose(self) -> None:
        """Let go of where they are kept."""
        ...


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """How one limit stands."""

    name: str
    limit: float
    level: float
    used_last_minute: float
    share: float
    reserve: float


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """How one lane stands, and why it waits."""

    name: str
    waiting: int
    in_flight: int
    refusals: int
    waiting_for: str | None
    next_in: float | None
    limits: tuple[LimitStatus, ...]

    @property
    def strictest(self) -> dict[str, LimitStatus]:
        """By name: a cap of the user's own goes by that of the published limit beside it, and the lower one counts."""
        found: dict[str, LimitStatus] = {}
        for limit in self.limits:
            if limit.name not in found or limit.limit < found[limit.name].limit:
                found[limit.name] = limit
        return found


class Scheduler:
    """Lanes, each at exactly the speed its limits allow.

    >>> import asyncio
    >>> from ratelimit import MINUTE, Limit, Scheduler
    >>> async def main():
    ...     scheduler = Scheduler({"my-model": [Limit("requests", 500, MINUTE)]})
    ...     async with scheduler.reserve("my-model") as turn:
    ...         turn.used()
    ...     return scheduler
    >>> asyncio.run(main())
    <Scheduler my-model: 0 waiting, 0 in flight>
    """

    def __init__(
        self,
        limits: Limits | Mapping[str, Iterable[Limit]],
        *,
        concurrency: int = 1000,
        slack: float = 1.0,
        pace: float = 10.0,
        patience: float = 1.0,
        longest_wait: float = 60.0,
        observer: Observers = None,
        resume: Mapping[str, Mapping[str, float]] | None = None,
        elapsed: float = 0.0,
        ledgers: Ledgers | None = None,
    ) -> None:
        if not concurrency >= 1:
            raise ValueError(f"concurrency is {concurrency!r}; at least one request must be let through")
        for setting, value in (
            ("slack", slack),
            ("pace", pace),
            ("patience", patience),
            ("longest_wait", longest_wait),
        ):
            if not value >= 0:  # nor is NaN
                raise ValueError(f"{setting} is {value!r}; it is a number of zero or more")
        self._limits = _named(limits) if isinstance(limits, Mapping) else limits
        self._concurrency = concurrency
        self._slack = slack
        self._pace = pace
        self._patience = patience
        self._longest_wait = longest_wait
        given = [observer] if callable(observer) else observer or ()
        self.audience: Audience = Audience([Log(), *given])
        self._lanes: dict[str, Lane] = {}
        self._arrivals = count(1)
        self._resume = resume or {}
        self._elapsed = elapsed
        self._resumed_at: float | None = None
        self._ledgers = ledgers

    def lane(self, name: str) -> Lane:
        """Return the lane of this name."""
        loop = asyncio.get_running_loop()
        if (lane := self._lanes.get(name)) is None:
            lane = self._lanes[name] = Lane(
                name,
                self._ledger(name, loop),
                concurrency=self._concurrency,
                pace=self._pace,
                patience=self._patience,
                audience=self.audience,
                loop=loop,
            )
        elif lane.loop is not loop:
            raise BadClient(
                f"lane {name}",
                "belongs to another event loop, which may have ended",
                "make a Scheduler within each asyncio.run, or a BlockingScheduler for threads",
            )
        return lane

    def reserve(
        self,
        name: str,
        *,
        tokens: float = 0,
        requests: float = 1,
        priority: float = 0,
        arrival: int | None = None,
        wait_at_most: float | None = None,
    ) -> Turn:
        """Return a turn to wait for with `async with`; lower `priority` goes first, a retry keeps its `arrival`.

        Entering it raises `NeverFits` at once, and `WaitedTooLong` after `wait_at_most` seconds.
        """
        for amount in (tokens, requests):
            if not amount >= 0:  # nor is NaN
                raise ValueError(f"a request costs a number of zero or more, not {amount!r}")
        return Turn(
            self.lane(name),
            {"requests": requests, "tokens": tokens} if tokens else {"requests": requests},
            priority=priority,
            arrival=self.arrive() if arrival is None else arrival,
            wait_at_most=wait_at_most,
        )

    def arrive(self) -> int:
        """Return the place in line of one who comes now; a retry keeps the place of its first turn."""
        return next(self._arrivals)

    def limited(
        self, name: str, *, tokens: float = 0, priority: float = 0, wait_at_most: float | None = None
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        """Return a decorator that makes each call of an async function wait for its turn."""

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            if isgeneratorfunction(function) or isasyncgenfunction(function):
                raise TypeError(
                    f"{function.__qualname__} is a generator; use reserve() around where it is iterated over"
                )

            @wraps(function)
            async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
                turn = self.reserve(name, tokens=tokens, priority=priority, wait_at_most=wait_at_most)
                async with turn:
                    answer = function(*args, **kwargs)
                    if not isawaitable(answer):
                        raise TypeError(f"{function!r} is not async; BlockingScheduler.limited is for such")
                    result = await answer
                    turn.used()
                    return result

            return wrapped

        return decorate

    def snapshot(self) -> tuple[LaneStatus, ...]:
        """Return how every lane stands."""
        return tuple(_status(lane) for lane in self._lanes.values())

    def spent(self) -> dict[str, dict[str, float]]:
        """Return what is missing from each limit of each lane: plain numbers to store, and to `resume` with later.

        A day's limit outlives a process. One that starts `elapsed` seconds later takes up where this one stopped.
        May be called from any thread.
        """
        lanes = list(self._lanes.items())  # in one step, for the loop's thread may add one
        return {name: missing for name, lane in lanes if (missing := lane.ledger.missing())}

    async def check(self) -> None:
        """Raise where limits are to be shared and cannot be."""
        if self._ledgers:
            await self._ledgers.check()

    async def aclose(self) -> None:
        """Give back what is held for nobody, where limits are shared."""
        if self._ledgers:
            for lane in self._lanes.values():
                await lane.ledger.aclose()
            await self._ledgers.aclose()

    def _ledger(self, name: str, loop: asyncio.AbstractEventLoop) -> Ledger:
        limits = tuple(self._limits(name))
        for limit in limits:
            if limit.unit not in _COUNTED:
                raise BadClient(
                    f"lane {printable(name)}",
                    f"has a limit on {printable(limit.unit)!r}, of which nothing is counted",
                    'limit "requests" or "tokens"',
                )
        if self._ledgers:
            ledger = self._ledgers(name, limits, loop)
        else:
            ledger = LocalLedger(limits, loop.time, slack=self._slack, longest_wait=self._longest_wait)
        if self._resumed_at is None:
            self._resumed_at = loop.time()
        if missing := self._resume.get(name):
            ledger.resume(missing, elapsed=self._elapsed + loop.time() - self._resumed_at)
        return ledger

    def __repr__(self) -> str:
        lanes = "; ".join(f"{lane.name}: {lane.status()}" for lane in list(self._lanes.values()))
        return f"<Scheduler {lanes or 'no lanes yet'}>"


def _named(known: Mapping[str, Iterable[Limit]]) -> Limits:
    """Return what looks limits up by the name of a lane."""

    def limits(name: str) -> Iterable[Limit]:
        if name not in known:
            names = ", ".join(sorted(map(printable, known)))
            raise BadClient(f"lane {printable(name)}", "has no limits", f"give it some, or name one that has: {names}")
        return known[name]

    return limits


def _status(lane: Lane) -> LaneStatus:
    quota, now = lane.ledger.quota, asyncio.get_running_loop().time()
    return LaneStatus(
        name=lane.name,
        waiting=lane.waiting,
        in_flight=lane.in_flight,
        refusals=lane.refusals,
        waiting_for=lane.waiting_for if lane.waiting else None,
        next_in=max(lane.waiting_until - now, 0) if lane.waiting and lane.waiting_until is not None else None,
        limits=tuple(
            LimitStatus(
                name=bucket.limit.name,
                limit=bucket.limit.amount,
                level=bucket.level(now),
                used_last_minute=quota.used_lately(bucket, now),
                share=bucket.share,
                reserve=bucket.reserve,
            )
            for bucket in quota.buckets
        ),
    )
