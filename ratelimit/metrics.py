"""What happens to requests as numbers that Prometheus reads.

    metrics = Metrics()
    async with ratelimit.open(tier="tier-1", observer=metrics) as client:
        metrics.follow(client)
        async with metrics.served(9000):
            ...

Labels are names of models, of limits, and causes of few words: never an id, a key, or anything of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from ratelimit.admission.events import Event, Finished, Granted, Refused, ServiceBack, ServiceDown
from ratelimit.admission.scheduler import LaneStatus

__all__ = ["CONTENT_TYPE", "Metrics", "family"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_WAITS: Final = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # seconds

Labels = tuple[tuple[str, str], ...]


class Followed(Protocol):
    """A client or a scheduler."""

    def snapshot(self) -> tuple[LaneStatus, ...]:
        """Return how every lane stands."""
        ...


class Histogram:
    """How many lay below each of some bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, labels: Labels) -> Iterator[tuple[str, Labels, float]]:
        """Yield suffix, labels and value of each line."""
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            yield "_bucket", (*labels, ("le", _number(bound))), total
        yield "_sum", labels, self._sum
        yield "_count", labels, total


class Metrics:
    """An observer that counts, and shows its counts in Prometheus' text format."""

    hears: Final = frozenset((Granted, Refused, Finished, ServiceDown, ServiceBack))

    def __init__(self) -> None:
        self._followed: Followed | None = None
        self._counts: dict[str, Counter[Labels]] = {name: Counter() for name in _COUNTERS}
        self._waits: dict[Labels, Histogram] = {}
        self._down = False

    def follow(self, followed: Followed) -> None:
        """Show how the lanes of a client or a scheduler stand, too."""
        self._followed = followed

    def __call__(self, event: Event) -> None:
        """Count what has happened."""
        model = ("model", event.lane)
        match event:
            case Granted():
                labels = (model, ("dim", event.waited_for or "none"))
                if (waits := self._waits.get(labels)) is None:
                    waits = self._waits[labels] = Histogram(_WAITS)
                waits.add(event.waited)
            case Refused():
                self._counts["ratelimit_refusals_total"][model, ("dim", event.limit or "unknown")] += 1
            case Finished():
                self._finish(event, model)
            case ServiceDown() | ServiceBack():
                self._down = isinstance(event, ServiceDown)

    def _finish(self, event: Finished, model: tuple[str, str]) -> None:
        counts = self._counts
        counts["ratelimit_requests_total"][model, ("code", event.error or "200")] += 1
        for attempt in event.attempts:
            counts["ratelimit_attempts_total"][model, ("code", attempt.error or str(attempt.status))] += 1
        counts["ratelimit_retries_total"][model,] += max(len(event.attempts) - 1, 0)
        counts["ratelimit_tokens_total"][model, ("direction", "input")] += event.input_tokens
        counts["ratelimit_tokens_total"][model, ("direction", "output")] += event.output_tokens
        counts["ratelimit_cost_usd_total"][model,] += event.cost or 0  # type: ignore[assignment]  # a Counter holds any

    def text(self) -> str:
        """Return everything there is to tell now."""
        lanes = self._followed.snapshot() if self._followed else ()
        parts = [
            family(name, "counter", about, [("", labels, value) for labels, value in self._counts[name].items()])
            for name, about in _COUNTERS.items()
        ]
        waits = [sample for labels, each in self._waits.items() for sample in each.samples(labels)]
        parts.append(family("ratelimit_wait_seconds", "histogram", "Time from coming in to leaving, by reason.", waits))
        limits = [
            ((("model", lane.name), ("dim", limit.name)), limit) for lane in lanes for limit in lane.strictest.values()
        ]
        for name, about, field in _OF_LIMITS:
            parts.append(family(name, "gauge", about, [("", labels, getattr(each, field)) for labels, each in limits]))
        for name, about, field in _OF_LANES:
            samples = [("", (("model", lane.name),), getattr(lane, field)) for lane in lanes]
            parts.append(family(name, "gauge", about, samples))
        about = "1 while the service seems to be down."
        parts.append(family("ratelimit_service_down", "gauge", about, [("", (), float(self._down))]))
        return "".join(parts)

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[str]:
        """Serve /metrics on loopback for as long as the context is open; its value is the address."""
        from ratelimit.watch.serving import Page, address, bind, served  # noqa: PLC0415 - a web server, where one is wanted

        taken = bind(port)
        async with served(taken, {"/metrics": lambda: Page(CONTENT_TYPE, self.text())}):
            yield f"{address(taken)}metrics"


_COUNTERS: Final = {
    "ratelimit_requests_total": "Requests that are done with, all attempts included.",
    "ratelimit_attempts_total": "Sendings of requests that are done with.",
    "ratelimit_retries_total": "Sendings beyond the first.",
    "ratelimit_refusals_total": "Requests that the service has refused because of a limit.",
    "ratelimit_tokens_total": "Tokens as billed.",
    "ratelimit_cost_usd_total": "What the tokens cost by the tables.",
}
_OF_LIMITS: Final = (
    ("ratelimit_limit", "The limit as it is believed to be.", "limit"),
    ("ratelimit_utilisation", "Part of the limit that was used over its last window.", "used_last_minute"),
    ("ratelimit_share", "Part of the limit that others on the key leave to this program.", "share"),
)
_OF_LANES: Final = (
    ("ratelimit_inflight", "Requests on their way.", "in_flight"),
    ("ratelimit_queue_depth", "Requests that wait for their turn.", "waiting"),
)


def family(name: str, kind: str, about: str, samples: Sequence[tuple[str, Labels, float]]) -> str:
    """Return all lines of one metric."""
    lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
        lines.append(f"{name}{suffix}{f'{{{inside}}}' if inside else ''} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else f"{value:.15g}"
