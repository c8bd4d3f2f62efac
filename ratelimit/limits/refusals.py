"""What the message of a 429 says: which limit, how full it was, and how long to wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Refusal:
    """One limit that refused a request, in the server's own numbers."""

    kind: Literal["reached", "too large"]
    unit: str
    window: float
    limit: float
    used: float | None
    requested: float
    wait: float | None
    model: str
    bucket: str | None = None

    def implied_window(self) -> float | None:
        """The window in which the wait is the time the excess takes to refill; None when no known window fits."""
        raise NotImplementedError


def parse_refusal(message: object) -> Refusal | None:
    """Read the message of a 429; None for any other text, and for what is no text."""
    raise NotImplementedError
