"""How a run stands: one value, made from the tally and the lanes, that panel, lines, page and metrics all show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ratelimit.admission.scheduler import LaneStatus
from ratelimit.jobs.job import Sending, Watched
from ratelimit.jobs.tally import Tally
from ratelimit.limits.bucket import DAY, MINUTE

_WINDOWS: Final = {"RPM": MINUTE, "RPD": DAY}


@dataclass(frozen=True, slots=True)
class Standing:
    """A run at one moment."""

    looked_at: int
    begun: bool
    ended: bool
    stopped: str | None
    seconds: float
    total: int | None
    done: int  # answered, now or in earlier runs
    answered: int
    failed: int
    left: int | None
    rate: float | None  # answers per second, of late; None at the very beginning
    to_go: float | None  # seconds until the slowest lane is through, if all goes on like that
    retried: int
    refused: int
    input_tokens: int
    output_tokens: int
    cost: float
    down: bool
    failures: Mapping[str, int]
    lanes: tuple[LaneStatus, ...]
    beside: str  # what there is to say besides

    @property
    def part(self) -> float | None:
        """How much of the whole is done, if that is known."""
        return (self.done + self.failed) / self.total if self.total else None

    @property
    def projected(self) -> float | None:
        """What it will have cost in the end, if the rest is like what was."""
        return self.cost / self.answered * (self.answered + (self.left or 0)) if self.answered else None

    @property
    def in_flight(self) -> int:
        """How many requests are on their way."""
        return sum(lane.in_flight for lane in self.lanes)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return sum(lane.waiting for lane in self.lanes)

    @property
    def limited_by(self) -> str:
        """What limits the run now, in words."""
        if not self.begun:
            return "checking the input"
        if self.ended:
            return "stopped" if self.stopped else "done"
        if self.down:
            return "the service seems to be down: asking now and then"
        reasons = sorted({reason for lane in self.lanes if (reason := binding(lane))})
        return f"limited by {' and '.join(reasons)}" if reasons else "limited by nothing of ours"


def look(run: Watched, client: Sending) -> Standing:
    """Return how a run stands now."""
    now, tally, count = asyncio.get_running_loop().time(), run.tally, client.count
    return Standing(
        looked_at=tally.looked_at,
        begun=tally.begun,
        ended=tally.ended_at is not None,
        stopped=str(run.stopped) if run.stopped else None,
        seconds=(tally.ended_at or now) - tally.started_at if tally.begun else 0.0,
        total=tally.total,
        done=tally.done_before + tally.answers,
        answered=tally.answers,
        failed=tally.failed,
        left=tally.left,
        rate=tally.rate(now),
        to_go=_to_go(tally, client.snapshot(), now),
        retried=count.retried,
        refused=count.refused,
        input_tokens=tally.input_tokens,
        output_tokens=tally.output_tokens,
        cost=tally.cost,
        down=client.paused,
        failures=dict(tally.failures),
        lanes=client.snapshot(),
        beside=run.standing(),
    )


def _to_go(tally: Tally, lanes: Iterable[LaneStatus], now: float) -> float | None:
    """Return in how many seconds all is done: as it went of late, but no faster than limits on requests let it go on.

    At first a lane that was full goes many times faster than it can go on.
    """
    seconds = tally.to_go(now)
    if seconds is None or not tally.live:
        return seconds
    least = (
        (tally.left_of[lane.name] - max(limit.level, 0.0)) / (limit.limit / _WINDOWS[limit.name])
        for lane in lanes
        for limit in lane.limits
        if limit.name in _WINDOWS
    )
    return max(seconds, *least, 0.0)


def binding(lane: LaneStatus) -> str | None:
    """Return what a lane waits for, if anybody waits; the pace of a lane whose limit is used up is that limit's."""
    if not lane.waiting or lane.waiting_for != "pace":
        return lane.waiting_for if lane.waiting else None
    used = max(lane.limits, key=lambda limit: limit.used_last_minute, default=None)
    return used.name if used and used.used_last_minute > 0.97 else "pace"
