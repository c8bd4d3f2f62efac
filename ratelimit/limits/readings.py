"""One limit as a server's headers claim it stands, and what its arithmetic gives away.

The headers name a unit but no window: on a model with a limit per day, `x-ratelimit-*-requests` speaks of the day and
the minute is invisible.  The numbers tell which.  The service refills continuously, so a bucket whose level is l of a
limit L over a window W is full again in (L - l) * W / L seconds; `remaining` is l cut to a whole number and `reset` is
that time cut to milliseconds.  Windows lie a factor of 30 or more apart, so hardly ever do two of them fit.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOWS = (60.0, 86_400.0, 2_592_000.0)
"""Seconds; a minute, a day and the 30 days of some unpaid accounts: every window that has been seen in headers."""

CUT = 0.001
"""Seconds; `reset` is cut to whole milliseconds, so up to this much of it is missing."""

TICK = 1e-6
"""Seconds; the service keeps its clock in whole microseconds, and a float of a month is far finer than that."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One limit as the server claims it stands; None where it said nothing, or nothing credible."""

    unit: str
    """`requests`, `tokens` or `input-images`."""
    limit: float | None
    remaining: float | None
    reset: float | None
    """Seconds until the limit is full again, which is not until one may send."""
    scope: str = "organization"
    """`organization` or `project`; a project's limits are buckets of their own."""
    window: float | None = None
    """Seconds, where the server names them (Azure does); see `implied_window` for where it does not."""

    def implied_window(self) -> float | None:
        """The one window in which `remaining` and `reset` agree, in seconds; None when none or several do.

        Takes the reading to come from a reply that was admitted, so that at least 1 is in use.  A refusal's reading of
        another limit may have less than 1 in use; that fits no window, but for coincidence.
        """
        fitting = [window for window in WINDOWS if self._fits(window, least=1.0)]
        return fitting[0] if len(fitting) == 1 else None

    def is_linear(self, window: float) -> bool | None:
        """Whether `remaining` and `reset` agree as a bucket refilled continuously over `window` would say.

        False means a server that counts otherwise (a fixed window, say) or over another window.  None means that it
        cannot be told: a number is missing, nothing is in use, or less than any admitted request takes.
        """
        if self._fits(window, least=1.0):
            return True
        return False if self._fits(window, least=0.0) is False else None

    def _fits(self, window: float, least: float) -> bool | None:
        """Whether some level that shows as `remaining`, with `least` or more in use, shows as `reset` too."""
        if not self.limit or self.remaining is None or self.reset is None:
            return None
        most = self.limit - self.remaining
        if most <= 0 and self.reset == 0:
            return None
        interval = window / self.limit
        shortest = max(most - 1, least) * interval
        return shortest < self.reset + CUT + TICK and self.reset <= most * interval + TICK
