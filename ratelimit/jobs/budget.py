"""What a run may do at most: rows, requests, money.

Money is spent when an answer comes, so what is on its way counts at the most it can cost: a run may end a little early,
and never late.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from ratelimit.errors import JobStopped, RateLimitError
from ratelimit.jobs.figures import money, price
from ratelimit.jobs.source import Row
from ratelimit.jobs.tally import Tally
from ratelimit.limits.charge import billed_input, measure
from ratelimit.limits.tiers import Table

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """What a job is asked to do beside sending everything."""

    limit: int | None = None  # rows to send at most, for a smoke test
    max_cost: float | None = None
    max_requests: int | None = None
    deadline: float | None = None
    skip_bad: bool = False
    check: bool = True
    force: bool = False
    pause_at_daily_limit: bool = False
    concurrency: int = 1000
    drain: float = 30.0


class Stopped(JobStopped):
    """The run was stopped with work left; the same command continues it."""


class Spender(Protocol):
    """Something that is being done."""

    sent: bool
    worst: float


class Budget:
    """Rows, requests and dollars, and whether there is enough left of each."""

    def __init__(self, options: Options, tally: Tally, table: Table) -> None:
        self.started = 0
        self.over: bool = False  # nothing more is to start
        self.used_up: Stopped | None = None  # and this is why, where it was not only a part that was asked for
        self._rows = options.limit
        self._requests = options.max_requests
        self._dollars = options.max_cost
        self._tally = tally
        self._table = table

    def worst(self, row: Row) -> float:
        """Return the most that a row can cost, if anybody wants to know."""
        if self._dollars is None:
            return 0.0
        try:
            request = row.request()
            size = measure(request.fields, request.path)
            model = self._table.find(size.model)
            prices = model.prices
            if prices is None:
                return 0.0
            answers = 0 if size.endpoint in {"embeddings", "moderations"} else size.choices
            output = answers * (size.cap or model.max_output or 0)
            return (billed_input(size, model) * prices.input + output * prices.output) / _MILLION
        except RateLimitError:
            return 0.0  # it will not be sent

    def allows(self, worst: float, flights: Collection[Spender]) -> bool:
        """Whether one more row may start; if not, either what is under way must land first, or all is `over`."""
        if self.over:
            return False
        if self._rows is not None and self.started >= self._rows:
            self.over = True
            return False
        if self._requests is not None:
            waiting = sum(not flight.sent for flight in flights)
            if self._tally.attempts + waiting >= self._requests:
                if not waiting:
                    self.over, self.used_up = True, self._requests_sent()
                return False
        if self._dollars is not None and self._tally.cost + sum(each.worst for each in flights) + worst > self._dollars:
            if not flights:
                self.over, self.used_up = True, self._dollars_spent(worst)
            return False
        return True

    def count_attempt(self) -> None:
        """Raise if no further request may be sent, were it only a retry."""
        if self._requests is not None and self._tally.attempts >= self._requests:
            raise self._requests_sent()

    def _requests_sent(self) -> Stopped:
        return Stopped(f"the run has sent the {self._requests:,} requests it may; run again for the rest")

    def _dollars_spent(self, worst: float) -> Stopped:
        return Stopped(
            f"the run has spent {money(self._tally.cost)} of the {price(self._dollars or 0)} it may, and the "
            f"next request can cost {money(worst)}; raise --max-cost, or cap answers with max_completion_tokens, "
            f"and run again"
        )
