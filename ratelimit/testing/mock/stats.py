"""What arrived: counts, peaks over any window, a line for each second, and who was answered twice."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import msgspec

_SECONDS_KEPT = 200_000  # more than two days
_IDS_KEPT = 1_000_000
_UNSEEN = 10_000


class Record(msgspec.Struct):
    """One request, from arrival to its last byte; a line of the request log."""

    number: int
    at: float
    method: str
    path: str
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


class Notes:
    """When things happened and what they weighed: the most in any second and any minute, and counts by the second.

    Plain arrays, summed up only when someone asks or when many have come together: a note must cost next to nothing.
    """

    def __init__(self) -> None:
        self._at = array("d")
        self._tokens = array("q")
        self._seen = 0
        self._windows = (_Window(1.0), _Window(60.0))
        self._counts: Counter[int] = Counter()
        self._weights: Counter[int] = Counter()

    def add(self, at: float) -> None:
        """Notes something that happened at `at`; times do not go back."""
        self._at.append(at)
        if len(self._at) - self._seen > _UNSEEN:
            self._sum_up()

    def weigh(self, at: float, tokens: int) -> None:
        """Notes something with a weight; the same notes are either all weighed or none."""
        self._tokens.append(tokens)
        self.add(at)

    def peaks(self) -> tuple[_Window, _Window]:
        """The most in any second and in any minute."""
        self._sum_up()
        return self._windows

    def seconds(self) -> tuple[Counter[int], Counter[int]]:
        """How many there were in each second, and their weight."""
        self._sum_up()
        return self._counts, self._weights

    def _sum_up(self) -> None:
        for window in self._windows:
            window.look(self._at, self._seen)
            window.weigh(self._at, self._tokens, self._seen)
        self._counts.update(map(int, self._at[self._seen :]))
        for at, tokens in zip(self._at[self._seen :], self._tokens[self._seen :], strict=False):
            self._weights[int(at)] += tokens
        for seconds in (self._counts, self._weights):
            for old in sorted(seconds)[:-_SECONDS_KEPT]:
                del seconds[old]
        self._seen = len(self._at)
        gone = min(window.needed(self._seen) for window in self._windows)
        if gone > _UNSEEN:
            del self._at[:gone], self._tokens[:gone]
            self._seen -= gone
            for window in self._windows:
                window.first = max(window.first - gone, 0)


class _Window:
    """One length of window over the notes, and the most it has held."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.requests = 0
        self.tokens = 0
        self.first = 0
        self._held = 0

    def needed(self, end: int) -> int:
        """The first note that a later window may still reach back to."""
        return min(self.first, end - self.requests) if self.first else end - self.requests

    def look(self, at: array[float], start: int) -> None:
        """Counts over the notes from `start` on: the most grows by one whenever one more fits into the window."""
        most, seconds = self.requests, self.seconds
        for place in range(max(start, most), len(at)):
            if at[place - most] > at[place] - seconds:
                most += 1
        self.requests = most

    def weigh(self, at: array[float], tokens: array[int], start: int) -> None:
        """Sums over the weights from `start` on."""
        first, held, most = self.first, self._held, self.tokens
        for place in range(start, len(tokens)):
            held += tokens[place]
            begin = at[place] - self.seconds
            while at[first] <= begin:
                held -= tokens[first]
                first += 1
            most = max(most, held)
        self.first, self._held, self.tokens = first, held, most


class Stats:
    """Counts since the start or the last reset."""

    def __init__(self) -> None:
        self.in_flight: int = 0
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the requests that are in flight now."""
        self.arrived: int = 0
        self.admitted: int = 0
        self.tokens: int = 0
        self.refused: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.most_in_flight: int = self.in_flight
        self.duplicates: int = 0
        self.answered_twice: int = 0
        self._arrivals = Notes()
        self._admissions = Notes()
        self._refusals = Notes()
        self._failures = Notes()
        self._ids: dict[str, int] = {}

    def arrive(self, record: Record) -> None:
        """Counts a request that has come in."""
        self.arrived += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._arrivals.add(record.at)

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
        self._admissions.weigh(now, record.charge)

    def finish(self, record: Record) -> None:
        """Counts how a request ended."""
        self.in_flight -= 1
        self.statuses[record.status] += 1
        if record.refused is not None:
            self.refused[record.refused] += 1
            self._refusals.add(record.at)
        if record.fault is not None:
            self.faults[record.fault] += 1
        if record.status == 200:
            if record.custom_id in self._ids:
                self.answered_twice += self._ids[record.custom_id] > 0
                self._ids[record.custom_id] += 1
        elif record.status >= 500 or record.status == 0:
            self._failures.add(record.at)

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
                f"{admitted.seconds:.0f}s": {
                    "arrived": arrived.requests,
                    "admitted": admitted.requests,
                    "tokens": admitted.tokens,
                }
                for arrived, admitted in zip(self._arrivals.peaks(), self._admissions.peaks(), strict=True)
            },
            "timeline": self.timeline(),
        }

    def timeline(self) -> list[dict[str, int]]:
        """A line for each second in which anything arrived."""
        (arrived, _), (admitted, tokens) = self._arrivals.seconds(), self._admissions.seconds()
        (refused, _), (failed, _) = self._refusals.seconds(), self._failures.seconds()
        return [
            {
                "second": second,
                "arrived": arrived[second],
                "admitted": admitted[second],
                "refused": refused[second],
                "failed": failed[second],
                "tokens": tokens[second],
            }
            for second in sorted({*arrived, *admitted})
        ]
