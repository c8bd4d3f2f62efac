"""How full a model's batch queue is, as far as is known, and when it may be tried.

The service counts the input tokens of batches that are not over. It has been seen to let go of them long after; then a
batch fails validation with `token_limit_exceeded`, whatever our count says. So a refusal closes the queue for a while,
longer each time, and then one batch goes ahead of the others to see.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from ratelimit.jobs.batches.packing import Piece

_PARTS = 50  # of a queue: what one batch leaves empty when it ends is little
_FEWER_PARTS = 10  # where so many batches are made that their number becomes the limit
_SMALLEST = 0.01  # of a queue: less room than this is worth no file of its own
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0


@dataclass(slots=True)
class Queue:
    """The batch queue of one lane."""

    lane: str
    limit: float
    waiting: list[Piece] = field(default_factory=list)
    held: list[Piece] = field(default_factory=list)  # kept out of batches, for the live API
    only_live: list[Piece] = field(default_factory=list)  # what no batch can hold, for the live API as well
    enqueued: int = 0
    under_way: int = 0  # rows in batches
    unchecked: int = 0  # batches that the service has not let in yet
    refusals: int = 0
    closed_until: float = -math.inf

    @property
    def room(self) -> float:
        """What may be enqueued now."""
        return self.limit - self.enqueued

    @property
    def least(self) -> float:
        """How much room is worth splitting a file for; any at all where nothing else goes on."""
        return self.limit * _SMALLEST if self.enqueued and math.isfinite(self.limit) else 0.0

    def open_to(self, now: float) -> float:
        """Return how many batches may be created now; one at a time after a refusal, until one was let in."""
        if now < self.closed_until or (self.refusals and self.unchecked):
            return 0
        return 1 if self.refusals else math.inf

    def refused(self, now: float) -> None:
        """Close the queue for a while."""
        if now >= self.closed_until:
            pause = min(_FIRST_PAUSE * 2**self.refusals, _LONGEST_PAUSE)
            self.refusals = min(self.refusals + 1, 16)
            self.closed_until = now + pause

    def let_in(self) -> None:
        """Open the queue: the service has room after all."""
        self.refusals = 0


def parts(limit: float, total: int, created: int) -> float:
    """Return how many tokens a file is to hold: all there are where they fit, else a part of the queue."""
    if total <= limit:
        return math.inf
    return limit / (_PARTS if created < 1000 else _FEWER_PARTS)


_TOLD = re.compile(r"Limit: ([\d,]{1,20}) enqueued tokens")


def told_limit(message: str) -> int | None:
    """Return the limit that a refusal names."""
    found = _TOLD.search(message)
    return int(found[1].replace(",", "")) if found and found[1].strip(",") else None
