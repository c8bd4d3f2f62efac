"""The token bucket of the textbooks: a level, the time it was computed, and a cap. Slow, plain, and exact.

Tests feed fractions, to the oracle and to the code, so that equal means equal. The code's numbers are floats by type,
which fractions are not to a type checker; so `F` makes a fraction and calls it a float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import cast

from hypothesis import strategies as st

F = cast("Callable[..., float]", Fraction)


def fractions(least: float, most: float, *, max_denominator: int) -> st.SearchStrategy[float]:
    """Fractions to draw from."""
    drawn = st.fractions(Fraction(least), Fraction(most), max_denominator=max_denominator)
    return cast("st.SearchStrategy[float]", drawn)


class TextbookBucket:
    """A level and a timestamp, brought up to date before every step."""

    def __init__(self, amount: float, window: float, now: float, reserve: float = 0) -> None:
        self.amount = amount
        self.window = window
        self.reserve = F(reserve)
        self.share = F(1)
        self.burst: float | None = None
        self.level = self.top
        self.stamp = now
        self.full_since: float | None = now
        self.closed_until = now

    @property
    def rate(self) -> float:
        return self.share * self.amount / self.window

    @property
    def top(self) -> float:
        """The level of a full bucket."""
        return max(self.amount - self.reserve, F(0))

    @property
    def room(self) -> float:
        """The most that goes at once without further ado."""
        return self.top if self.burst is None else min(self.burst, self.top)

    def advance(self, now: float) -> None:
        if self.full_since is None:
            full_at = self.stamp + (self.top - self.level) / self.rate
            if full_at <= now:
                self.full_since = full_at
                self.level = self.top
            else:
                self.level += (now - self.stamp) * self.rate
        self.stamp = now

    def missing(self, now: float) -> float:
        self.advance(now)
        return self.top - self.level

    def ready_at(self, amount: float, now: float) -> float:
        """The first moment from now on at which `amount` may go."""
        missing = self.missing(now)
        if amount <= self.room:
            ready = now + max(missing + amount - self.room, F(0)) / self.rate
        elif amount <= self.top:
            ready = now + missing / self.rate
        else:
            since = now + missing / self.rate if self.full_since is None else self.full_since
            ready = since + (amount - self.top) / self.rate
        return max(ready, self.closed_until, now)

    def take(self, amount: float, now: float) -> None:
        self.advance(now)
        self.level -= amount
        self.full_since = None

    def give(self, amount: float, now: float) -> None:
        self.advance(now)
        if self.full_since is None:
            self.level = min(self.level + amount, self.top)
            if self.level == self.top:
                self.full_since = now

    def retune(self, now: float, **changes: float) -> None:
        """What is missing stays missing."""
        missing = self.missing(now)
        for name, value in changes.items():
            setattr(self, name, value)
        self.level = self.top - missing


class TextbookQuota:
    """Several textbook buckets, asked one after the other before any is taken from."""

    def __init__(self, buckets: Sequence[tuple[str, TextbookBucket]]) -> None:
        self.buckets = buckets

    def ready_at(self, cost: Mapping[str, float], now: float) -> float:
        return max((b.ready_at(cost[unit], now) for unit, b in self.buckets if cost.get(unit)), default=now)

    def reserve(self, cost: Mapping[str, float], now: float) -> float | None:
        """None when taken, else when to ask again."""
        ready = self.ready_at(cost, now)
        if ready > now:
            return ready
        for unit, bucket in self.buckets:
            if cost.get(unit):
                bucket.take(cost[unit], now)
        return None

    def settle(self, cost: Mapping[str, float], actual: Mapping[str, float], now: float) -> None:
        for unit, bucket in self.buckets:
            extra = actual.get(unit, F(0)) - cost.get(unit, F(0))
            if extra > 0:
                bucket.take(extra, now)
            else:
                bucket.give(-extra, now)


class TextbookServer:
    """A service that refills continuously and refuses what does not fit: nothing kept back, nothing saved for later."""

    def __init__(self, amount: float, window: float, now: float = 0) -> None:
        self._bucket = TextbookBucket(amount, window, F(now))

    def arrives(self, charge: float, now: float) -> float | None:
        """How much is missing after a request that is admitted; None when it is refused."""
        if self._bucket.ready_at(charge, now) > now:
            return None
        self._bucket.take(charge, now)
        return self._bucket.missing(now)

    def missing(self, now: float) -> float:
        return self._bucket.missing(now)
