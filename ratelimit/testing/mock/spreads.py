"""Distributions named in one short text, for latencies and lengths: a draw is a function of one number below one.

So the same seed gives the same draws whatever else is going on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from ratelimit.errors import BadMockOption

GRAMMAR = "a number, LOW-HIGH, lognormal:MEDIAN,SIGMA or exponential:MEAN"
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution; `at(u)` is its value at quantile `u`, `text` how it was written."""

    text: str
    at: Callable[[float], float]

    def whole(self, u: float) -> int:
        """The value as a count, never below zero."""
        return max(round(self.at(u)), 0)


def _constant(value: float) -> Callable[[float], float]:
    return lambda _: value


def _uniform(low: float, high: float) -> Callable[[float], float]:
    return lambda u: low + u * (high - low)


def _lognormal(median: float, sigma: float) -> Callable[[float], float]:
    return lambda u: median * math.exp(sigma * _NORMAL.inv_cdf(min(max(u, 1e-9), 1 - 1e-9)))


def _exponential(mean: float) -> Callable[[float], float]:
    return lambda u: -mean * math.log1p(-min(u, 1 - 1e-12))


def spread(given: float | tuple[float, float] | str, option: str) -> Spread:
    """Reads a distribution, or says how one is written."""
    text = f"{given[0]}-{given[1]}" if isinstance(given, tuple) else str(given)
    try:
        return Spread(text, _parse(text))
    except ValueError:
        raise BadMockOption(option, text, f"write {GRAMMAR}, none of them negative") from None


def _parse(text: str) -> Callable[[float], float]:
    name, _, rest = text.partition(":")
    if name == "lognormal":
        median, sigma = _numbers(rest.split(","), 2)
        return _lognormal(median, sigma)
    if name == "exponential":
        return _exponential(_numbers([rest], 1)[0])
    low, *high = _numbers(text.split("-"), 1 + text.count("-"))
    if len(high) > 1 or (high and high[0] < low):
        raise ValueError(text)
    return _uniform(low, high[0]) if high else _constant(low)


def _numbers(texts: list[str], count: int) -> list[float]:
    found = [float(each) for each in texts]
    if len(found) != count or not all(math.isfinite(each) and each >= 0 for each in found):
        raise ValueError(texts)
    return found
