"""What a run has done so far: counts, tokens, cost, and how it went over time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

from ratelimit.jobs.figures import SHORTEST
from ratelimit.jobs.preflight import Findings
from ratelimit.limits.bucket import MINUTE
from ratelimit.limits.tiers import Table
from ratelimit.wire.messages import Reply

_LATELY = 20.0  # seconds
_POINTS = 600  # of the series kept: when there are more, every two become one


@dataclass(slots=True)
class Point:
    """One stretch of the run."""

    start: float
    sent: int = 0
    answered: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    latency: float = 0.0  # summed over the answered
    lanes: Counter[str] = field(default_factory=Counter)  # of the answered, how many each lane has


class Tally:
    """Counts what happens; asked for numbers by progress and summary."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.looked_at = 0
        self.begun: bool = False
        self.total: int | None = None
        self.done_before: int = 0
        self.attempts: int = 0
        self.answers: int = 0
        self.failures: Counter[str] = Counter()
        self.first_failure: str | None = None  # in words
        self.live: bool = False  # nothing goes by the Batch API, so no lane is faster than its limits
        self.left_of: Counter[str] = Counter()  # by lane; empty where nobody has counted
        self._answered_of: Counter[str] = Counter()
        self.waited: dict[str, float] = defaultdict(float)  # seconds in which a lane waited, by what for
        self.input_tokens: int = 0
        self.output_tokens: int = 0
        self.cost: float = 0.0
        self.batched = 0  # of the answers, those that came through the Batch API
        self.saved: float = 0.0
        self.unpriced: int = 0
        self.started_at: float = 0.0
        self.ended_at: float | None = None
        self.points: list[Point] = []
        self.stretch: float = 1.0  # seconds per point

    @property
    def failed(self) -> int:
        """How many requests will not succeed."""
        return sum(self.failures.values())

    @property
    def left(self) -> int | None:
        """How many are still to be answered, if the input was looked through."""
        return None if self.total is None else max(self.total - self.done_before - self.answers - self.failed, 0)

    def rate(self, now: float) -> float | None:
        """Return how many answers a second have come of late; None where that is too short to tell."""
        points, span = self._lately(now)
        return sum(point.answered for point in points) / span if span >= SHORTEST else None

    def to_go(self, now: float) -> float | None:
        """Return in how many seconds the last lane is through, if each goes on as it does; None if one says nothing."""
        points, span = self._lately(now)
        if not self.left or span < SHORTEST:
            return None
        if not (left_of := +self.left_of):
            return self.left / rate if (rate := self.rate(now)) else None
        lately = sum((point.lanes for point in points), Counter[str]())
        elapsed = now - self.started_at
        rates = {lane: lately[lane] / span or self._answered_of[lane] / elapsed for lane in left_of}
        return max(left / rates[lane] for lane, left in left_of.items()) if all(rates.values()) else None

    def _lately(self, now: float) -> tuple[list[Point], float]:
        """Return the last stretches, and how many seconds they are."""
        first = max(int((now - self.started_at - _LATELY) / self.stretch), 0)
        return self.points[first:], now - self.started_at - first * self.stretch

    def in_a_minute(self, amount: Callable[[Point], float]) -> list[float]:
        """Return, for each stretch, the amount of the minute that ended with it, as limits count it."""
        amounts = [amount(point) for point in self.points]
        if self.stretch >= MINUTE:
            return [each * MINUTE / self.stretch for each in amounts]
        sums, window = [0.0, *accumulate(amounts)], round(MINUTE / self.stretch)
        return [sums[n] - sums[max(n - window, 0)] for n in range(1, len(sums))]

    def start(self, found: Findings, now: float) -> None:
        """Begin with what the input holds."""
        self.total = found.rows if found.looked else None
        self.done_before = found.done
        counted = Counter({lane: count for lane, (count, _) in found.lanes.items()})
        if counted.total() + found.bad == self.left:  # not after a crash: what was counted was before it
            self.left_of = counted
        self.started_at = now
        self.begun = True

    def end(self, now: float) -> None:
        """End the run."""
        self.ended_at = now

    def sent(self, now: float, many: int = 1) -> None:
        """Count attempts."""
        self.attempts += many
        self._point(now).sent += many

    def answered(self, model: str, reply: Reply, began: float, now: float, *, discount: float = 0.0) -> None:
        """Count one answer; one with a discount is cheaper by that part of its price."""
        self.answers += 1
        point = self._point(now)
        point.answered += 1
        point.latency += now - began
        about = self._table.find(model)
        point.lanes[about.name] += 1
        self._answered_of[about.name] += 1
        self.left_of[about.name] -= 1
        envelope = reply.envelope()
        usage = envelope[1] if envelope else None
        if usage is None:
            return
        self.input_tokens += usage.input
        self.output_tokens += usage.output
        point.input_tokens += usage.input
        point.output_tokens += usage.output
        prices = about.prices
        if prices is None:
            self.unpriced += 1
        else:
            price = prices.of(usage.input, usage.output)
            self.cost += price * (1 - discount)
            self.saved += price * discount

    def gave_up(self, code: str, now: float, model: str | None = None, *, said: str = "") -> None:
        """Count one request that will not succeed; one that names no model had no lane."""
        self.first_failure = self.first_failure or said or None
        self.failures[code] += 1
        if model is not None:
            self.left_of[self._table.find(model).name] -= 1
        self._point(now).failed += 1

    def _point(self, now: float) -> Point:
        place = int((now - self.started_at) / self.stretch)
        if place >= _POINTS:
            self._coarsen()
            return self._point(now)
        while len(self.points) <= place:
            self.points.append(Point(len(self.points) * self.stretch))
        return self.points[place]

    def _coarsen(self) -> None:
        self.stretch *= 2
        pairs = zip(self.points[::2], [*self.points[1::2], Point(0)], strict=False)
        self.points = [
            Point(
                one.start,
                one.sent + two.sent,
                one.answered + two.answered,
                one.failed + two.failed,
                one.input_tokens + two.input_tokens,
                one.output_tokens + two.output_tokens,
                one.latency + two.latency,
                one.lanes + two.lanes,
            )
            for one, two in pairs
        ]
