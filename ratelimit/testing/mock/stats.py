"""What arrived: counts, peaks over any window, a line for each second, and who was answered twice."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import msgspec

_SECONDS_KEPT = 200_000  # more than two days
_IDS_KEPT = 1_000_000


class Record(msgspec.Struct):
    """One request, from arrival to its last byte; a line of the request log."""

    number: int
    at: float
    method: str
    path: str
    key: str = ""
    organization: str = ""
    project: str = ""
    model: str = ""
    custom_id: str | None = None
    size: int = 0
    charge: int = 0
    status: int = 0
    refused: str | None = None
    fault: str | None = None
    seconds: float = 0.0


class Peaks:
    """The most that happened in any second and in any minute, exactly.

    Plain arrays, since at thousands a second a minute of small objects is work for the garbage collector.
    """

    def __init__(self) -> None:
        self.second_requests = self.second_tokens = 0
        self.minute_requests = self.minute_tokens = 0
        self._at = array("d")
        self._tokens = array("q")
        self._second_from = self._minute_from = 0
        self._second_sum = self._minute_sum = 0

    def add(self, at: float, tokens: int = 0) -> None:
        """Counts something that happened at `at`; times do not go back."""
        times, amounts = self._at, self._tokens
        times.append(at)
        amounts.append(tokens)
        self._second_sum += tokens
        self._minute_sum += tokens
        while times[self._second_from] <= at - 1:
            self._second_sum -= amounts[self._second_from]
            self._second_from += 1
        while times[self._minute_from] <= at - 60:
            self._minute_sum -= amounts[self._minute_from]
            self._minute_from += 1
        self.second_requests = max(self.second_requests, len(times) - self._second_from)
        self.minute_requests = max(self.minute_requests, len(times) - self._minute_from)
        if tokens:
            self.second_tokens = max(self.second_tokens, self._second_sum)
            self.minute_tokens = max(self.minute_tokens, self._minute_sum)
        if self._minute_from > 100_000:
            self._forget()

    def _forget(self) -> None:
        """Drops what has left every window."""
        gone = self._minute_from
        del self._at[:gone], self._tokens[:gone]
        self._second_from -= gone
        self._minute_from = 0


class Stats:
    """Counts since the start or the last reset."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the requests that are in flight now."""
        self.arrived = 0
        self.admitted = 0
        self.tokens = 0
        self.refused: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.most_in_flight = self.in_flight
        self.duplicates = 0
        self.answered_twice = 0
        self.arrived_peaks = Peaks()
        self.admitted_peaks = Peaks()
        self.timeline: dict[int, list[int]] = {}
        self._latest = -1
        self._line = [0, 0, 0, 0, 0]
        self._ids: dict[str, int] = {}

    def arrive(self, record: Record) -> None:
        """Counts a request that has come in."""
        self.arrived += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.arrived_peaks.add(record.at)
        self._second(record.at)[0] += 1

    def name(self, record: Record) -> None:
        """Counts a request whose id is now known."""
        if record.custom_id is None:
            return
        answered = self._ids.get(record.custom_id)
        if answered is not None:
            self.duplicates += 1
        elif len(self._ids) < _IDS_KEPT:
            self._ids[record.custom_id] = 0

    def admit(self, record: Record, now: float) -> None:
        """Counts a request that passed all limits now."""
        self.admitted += 1
        self.tokens += record.charge
        self.models[record.model] += 1
        self.admitted_peaks.add(now, record.charge)
        second = self._second(now)
        second[1] += 1
        second[4] += record.charge

    def finish(self, record: Record) -> None:
        """Counts how a request ended."""
        self.in_flight -= 1
        self.statuses[record.status] += 1
        if record.refused is not None:
            self.refused[record.refused] += 1
            self._second(record.at)[2] += 1
        if record.fault is not None:
            self.faults[record.fault] += 1
        if record.status == 200:
            if record.custom_id in self._ids:
                self.answered_twice += self._ids[record.custom_id] > 0
                self._ids[record.custom_id] += 1
        elif record.status >= 500 or record.status == 0:
            self._second(record.at)[3] += 1

    def snapshot(self) -> dict[str, Any]:
        """Everything as plain values, the body of `GET /_mock/stats`."""
        return {
            "arrived": self.arrived,
            "admitted": self.admitted,
            "tokens": self.tokens,
            "refused": dict(self.refused),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "faults": dict(self.faults),
            "models": dict(self.models),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "duplicates": self.duplicates,
            "answered_twice": self.answered_twice,
            "peaks": {
                "1s": {
                    "arrived": self.arrived_peaks.second_requests,
                    "admitted": self.admitted_peaks.second_requests,
                    "tokens": self.admitted_peaks.second_tokens,
                },
                "60s": {
                    "arrived": self.arrived_peaks.minute_requests,
                    "admitted": self.admitted_peaks.minute_requests,
                    "tokens": self.admitted_peaks.minute_tokens,
                },
            },
            "timeline": [
                {"second": second, "arrived": a, "admitted": b, "refused": c, "failed": d, "tokens": e}
                for second, (a, b, c, d, e) in sorted(self.timeline.items())
            ],
        }

    def _second(self, at: float) -> list[int]:
        second = int(at)
        if second == self._latest:
            return self._line
        found = self.timeline.get(second)
        if found is None:
            if len(self.timeline) >= _SECONDS_KEPT:
                del self.timeline[next(iter(self.timeline))]
            found = self.timeline[second] = [0, 0, 0, 0, 0]
        self._latest, self._line = second, found
        return found
