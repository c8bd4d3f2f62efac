"""What a reply's headers say about the limits: `x-ratelimit-*`, `retry-after*` and `x-should-retry` -> `Observed`.

Every reply passes here, so headers are walked once, by a table of the names that matter, and only those are read.  They
come from servers and proxies of all kinds: whatever is absent, absurd or garbled was not observed, field by field, and
nothing is ever raised.  `docs/headers.md` lists the vendors' variants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ratelimit.limits.durations import LONGEST, LONGEST_TEXT, parse_duration, parse_http_date
from ratelimit.limits.readings import Reading
from ratelimit.limits.refusals import Refusal, parse_refusal

__all__ = ["ABSURD", "NOTHING", "Observed", "Reading", "Refusal", "parse", "parse_duration", "parse_refusal"]

ABSURD = 1e12
"""A limit or remainder of this or more is none: the largest published one is 15e9 (tokens in a batch queue)."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything one reply says about the limits; a field that was absent or absurd is None."""

    readings: tuple[Reading, ...] = ()
    retry_after: float | None = None
    """Seconds."""
    should_retry: bool | None = None
    refusal: Refusal | None = None
    """Never from headers: `replace(parse(headers), refusal=parse_refusal(message))` joins the two."""
    worked: float = 0.0
    """Seconds that the server says it has worked on the request; the rest of the time it was on the way."""


NOTHING = Observed()


class _Names(NamedTuple):
    """The headers that speak of one limit."""

    unit: str
    scope: str
    limit: str
    remaining: str
    reset: str
    window: str
    wait: str


_LIMITS = tuple(
    _Names(
        unit=unit,
        scope=scope,
        limit=f"x-ratelimit-limit-{prefix}{unit}",
        remaining=f"x-ratelimit-remaining-{prefix}{unit}",
        reset=f"x-ratelimit-reset-{prefix}{unit}",
        window=f"x-ratelimit-renewalperiod-{prefix}{unit}",
        wait=f"x-rate-limit-reset-{prefix}{unit}",
    )
    for scope, prefix in (("organization", ""), ("project", "project-"))
    for unit in ("requests", "tokens", "input-images")
)
_WORKED = "openai-processing-ms"
_READ: dict[str, _Names | None] = {name: names for names in _LIMITS for name in names[2:]}
_READ |= dict.fromkeys(("retry-after-ms", "retry-after", "x-should-retry", "date", _WORKED))
_VERDICTS = {"true": True, "false": False}
_AMOUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


def parse(headers: Mapping[str, str], *, now: float | None = None) -> Observed:
    """Read a reply's headers, whatever their case; never raises, whatever they hold.

    `now`, in epoch seconds, is what a `Retry-After` date is counted from; without it the reply's own `Date` is.  Of a
    header that came twice, as two or merged into one ("500, 500"), the first counts.
    """
    found: dict[str, str] = {}
    spoken_of: set[_Names | None] = set()
    pairs: Iterable[tuple[object, object]] = headers.items()
    for name, value in pairs:
        if isinstance(name, str) and (known := name.lower()) in _READ and isinstance(value, str):
            found.setdefault(known, value if len(value) <= LONGEST_TEXT else "")
            spoken_of.add(_READ[known])
    limits = [names for names in _LIMITS if names in spoken_of]
    readings = tuple(reading for names in limits if (reading := _reading(names, found)) is not None)
    retry_after = _retry_after(found, limits, now)
    should_retry = _VERDICTS.get(found.get("x-should-retry", "").strip().lower())
    if not readings and retry_after is None and should_retry is None:
        return NOTHING
    worked = _amount(found.get(_WORKED, "")) or 0.0
    return Observed(readings, retry_after, should_retry, worked=worked / 1000)


def _reading(names: _Names, found: dict[str, str]) -> Reading | None:
    """What the headers of one limit say together."""
    limit_text = _first(found.get(names.limit))
    remaining_text = _first(found.get(names.remaining))
    reset_text = _first(found.get(names.reset))
    if "-1" in {limit_text, remaining_text}:
        # Azure's -1/-1/0 says that the limit is not counted here, not that it is full.
        return None
    limit = _amount(limit_text) or None
    remaining = _amount(remaining_text)
    if limit is not None and remaining is not None and remaining > limit:
        remaining = None
    reset = parse_duration(reset_text)
    is_bare = reset is not None and reset_text[-1].isdigit()
    if reset is None:
        reset = parse_duration(_first(found.get(names.wait)))
    if limit is None and remaining is None and reset is None:
        return None
    window = parse_duration(_first(found.get(names.window))) or None
    reading = Reading(names.unit, limit, remaining, reset, names.scope, window)
    if window is not None and reset is not None and is_bare:
        # Azure's bare numbers have been seconds and, beside a renewal period, milliseconds: 1 of 120 used, reset 500.
        milliseconds = replace(reading, reset=reset / 1000)
        return milliseconds if milliseconds.is_linear(window) else reading
    return reading


def _retry_after(found: dict[str, str], limits: list[_Names], now: float | None) -> float | None:
    """How long the server asks to wait, by the most exact header that can be read."""
    if (milliseconds := _amount(_first(found.get("retry-after-ms")))) is not None and milliseconds <= LONGEST * 1000:
        return milliseconds / 1000
    if (text := found.get("retry-after")) is not None:
        if (seconds := parse_duration(_first(text))) is not None:
            return seconds
        start = parse_http_date(found.get("date", "")) if now is None else now
        if (moment := parse_http_date(text)) is not None and start is not None and 0 <= moment - start <= LONGEST:
            return moment - start
    # Azure has sent refusals with no other word on when to come back.
    waits = [parse_duration(_first(found.get(names.wait))) for names in limits]
    return max((wait for wait in waits if wait is not None), default=None)


def _first(text: str | None) -> str:
    """The first of values merged into one; empty when there is none."""
    return text.partition(",")[0].strip() if text else ""


def _amount(text: str) -> float | None:
    """A plain decimal number, not negative and not absurd."""
    if not _AMOUNT.fullmatch(text):
        return None
    amount = float(text)
    return amount if amount < ABSURD else None
