"""The live API's part of a job that goes both ways: rows of the spool, through the runner's own sending."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from ratelimit.errors import RateLimitError
from ratelimit.jobs.batches.packing import Piece
from ratelimit.jobs.batches.routes import Allowance, Work, rows_within
from ratelimit.jobs.batches.spool import Spool
from ratelimit.jobs.budget import Budget, Options
from ratelimit.jobs.chores import Chores
from ratelimit.jobs.flights import Flights
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.tally import Tally
from ratelimit.limits.tiers import Table
from ratelimit.wire.client import Client

_IN_HAND = 60.0  # seconds of work at the limits: what is in hand can go back to no batch


class Live:
    """Sends rows at the speed of their lanes; what it has in hand it keeps until it is answered."""

    def __init__(
        self,
        client: Client,
        spool: Spool,
        journal: Journal,
        *,
        tally: Tally,
        table: Table,
        changed: asyncio.Event,
        stop: Callable[[RateLimitError], None],
    ) -> None:
        options = Options()  # of which none is meant for half a job
        self.in_hand: Counter[str] = Counter()
        self.flights: Flights = Flights(
            client, journal, tally, Budget(options, tally, table), drain=options.drain, stop=stop
        )
        self._scheduler = client.sender.gate.scheduler
        self._chores = Chores(journal, self._scheduler, tally, options, stop)
        self._spool = spool
        self._concurrency = client.concurrency
        self._changed = changed
        self._low: dict[str, int] = {}

    def going_on(self) -> AbstractAsyncContextManager[None]:
        """What has to be done beside sending is done within."""
        return self._chores.going_on()

    async def end(self, *, in_order: bool) -> None:
        """Let what is on its way land, if there is to be order; raises what went wrong of itself."""
        if not in_order:
            self.flights.leave()
        await self.flights.land()
        if self.flights.broken:
            raise self.flights.broken

    def allowances(self, lane: str) -> list[Allowance]:
        """Return what bounds a lane now: its limits as they stand, and how many requests it may have in flight."""
        now = asyncio.get_running_loop().time()
        in_flight = Allowance("requests", 0.0, self._concurrency / max(self.flights.exchange, 0.001), 0.0)
        return [
            in_flight,
            *(
                Allowance(bucket.limit.unit, bucket.level(now), bucket.limit.rate * bucket.share, bucket.limit.window)
                for bucket in self._scheduler.lane(lane).ledger.quota.buckets
            ),
        ]

    def room(self, lane: str, row: Work) -> int:
        """Return how many rows of this size a lane takes now: few, for they are not given back."""
        takes = rows_within(_IN_HAND, row, [each.flowing for each in self.allowances(lane)])
        most = max(int(min(takes, self._concurrency)), 1)
        self._low[lane] = most // 2
        return most - self.in_hand[lane]

    def take(self, piece: Piece) -> None:
        """Send the rows of a piece."""
        lane = self._spool.groups[piece.group].lane
        for place in piece.rows:
            self.in_hand[lane] += 1
            self.flights.launch(self._spool.row(piece.group, place), 0.0, partial(self._landed, lane))

    def _landed(self, lane: str) -> None:
        self.in_hand[lane] -= 1
        if self.in_hand[lane] <= self._low[lane]:
            self._changed.set()
