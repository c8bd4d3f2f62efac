"""What the message of a 429 says: which limit refused, how full it was, and how long to wait.

The body's `code` is `rate_limit_exceeded` whichever limit it was; only the message names it, with the numbers.  Its
wait is the time the excess takes to refill, (used + requested - limit) * window / limit, cut to milliseconds, so the
window can be checked: one kind of unpaid account counts tokens over 30 days and calls it "tokens per min (TPM)".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ratelimit.limits.durations import parse_duration
from ratelimit.limits.readings import TICK, WINDOWS

LONGEST_MESSAGE = 2_000
"""Characters looked at; real messages have about 300, and whatever a server sends must cost no more than this."""

_MESSAGE = re.compile(
    r"(?P<kind>Rate limit reached|Request too large) for (?:model )?`?(?P<model>[^\s`]{1,200})`?"
    r"(?: \(for limit (?P<bucket>[^)]{1,200})\))?"
    # The organization, Groq's service tier, and whatever else says whose limit it is.
    r"(?: .{0,400}?)?"
    r" on (?P<unit>requests|tokens|input-images|images) per (?P<window>min|minute|day)(?: \([A-Z]{2,5}\))?:"
    r" Limit (?P<limit>[0-9]{1,12})(?:, Used (?P<used>[0-9]{1,12}))?, Requested (?P<requested>[0-9]{1,12})(?!\.?[0-9])"
    r"(?:\. Please try again in (?P<wait>[0-9.hm\u00b5un]{0,40}s)(?![^.\s]))?"
)
_SECONDS = {"min": 60.0, "minute": 60.0, "day": 86_400.0}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One limit that refused a request, in the server's own words and numbers."""

    kind: Literal["reached", "too large"]
    """`too large` is for ever: the request is more than the whole limit."""
    unit: str
    """`requests`, `tokens` or `input-images`."""
    window: float
    """Seconds, as the message calls it; `implied_window` is what its arithmetic says."""
    limit: float
    used: float | None
    requested: float
    wait: float | None
    """Seconds until the same request would pass, if nothing else is sent."""
    model: str
    bucket: str | None = None
    """The limit's own name, where models share one: `for gpt-4.1-2025-04-14 (for limit gpt-4.1)`."""

    def implied_window(self) -> float | None:
        """The one window in which the wait is the time the excess takes to refill, in seconds; None when none fits."""
        if self.used is None or self.wait is None or self.limit < 1:
            return None
        wait_ms = math.floor(self.wait * 1000 + TICK)
        excess = int(self.used + self.requested - self.limit)
        fitting = [window for window in WINDOWS if excess * int(window * 1000) // int(self.limit) == wait_ms]
        return fitting[0] if len(fitting) == 1 else None


def parse_refusal(message: object) -> Refusal | None:
    """Read the message of a 429; None for any other text, and for what is no text.

    A message of which one number is unreadable says nothing; only the wait may be missing from it.
    """
    if not isinstance(message, str) or not (found := _MESSAGE.match(message[:LONGEST_MESSAGE])):
        return None
    said = found.groupdict()
    return Refusal(
        kind="reached" if said["kind"] == "Rate limit reached" else "too large",
        unit="input-images" if said["unit"] == "images" else said["unit"],
        window=_SECONDS[said["window"]],
        limit=float(said["limit"]),
        used=None if said["used"] is None else float(said["used"]),
        requested=float(said["requested"]),
        wait=None if said["wait"] is None else parse_duration(said["wait"]),
        model=said["model"],
        bucket=said["bucket"],
    )
