"""How the mock counts: one meter for each cap, in whole microseconds, in its own naive code.

The service behaves as continuously refilling buckets as large as the published limit, whose state is one integer: the
microsecond at which the bucket will be full again. The other kinds are what compatible servers do instead: a list of
what happened in the last window, a window that starts anew, and a minute that is also enforced second by second.
Nothing here is shared with the package's own limits: a server that had the client's bugs could not show them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND

Dimension = Literal["rpm", "rpd", "tpm", "tpd", "images"]
Enforcement = Literal["bucket", "sliding", "fixed", "quantised"]
ENFORCEMENTS: tuple[Enforcement, ...] = get_args(Enforcement)

WINDOWS: dict[Dimension, int] = {"rpm": MINUTE, "rpd": DAY, "tpm": MINUTE, "tpd": DAY, "images": MINUTE}


class Cap(NamedTuple):
    """One published limit: so much of a dimension in a window."""

    dimension: Dimension
    limit: int
    window_us: int


def cap(dimension: Dimension, limit: int) -> Cap:
    """The cap of a dimension over its usual window."""
    return Cap(dimension, limit, WINDOWS[dimension])


class Meter(Protocol):
    """What has been taken under one cap."""

    cap: Cap

    def offer(self, cost: int, now: int, /) -> int | None:
        """What `accept` is to be given if `cost` fits at `now`, None if it does not; changes nothing."""
        ...

    def accept(self, offer: int, now: int, /) -> None:
        """Takes what was offered just before."""
        ...

    def fill(self, cost: int, now: int, /) -> None:
        """Takes as much of `cost` as there is room for."""
        ...

    def used(self, now: int, /) -> int:
        """What the messages and headers call used, a whole number."""
        ...

    def full_in(self, now: int, /) -> int:
        """Microseconds until nothing is used any more."""
        ...

    def wait_ms(self, cost: int, now: int, /) -> int:
        """The wait a refusal of `cost` tells, in whole milliseconds."""
        ...


class _Bucket:
    """Refills continuously, holds as much as the limit, starts full: the service itself.

    An offer is the microsecond at which the bucket would be full again.
    """

    __slots__ = ("cap", "full_at")

    def __init__(self, cap: Cap) -> None:
        self.cap = cap
        self.full_at = 0

    def _added(self, cost: int) -> int:
        # A cost is whole microseconds of refill, as it has been for the service since August 2025.
        _, limit, window = self.cap
        return (2 * cost * window + limit) // (2 * limit)

    def offer(self, cost: int, now: int) -> int | None:
        _, limit, window = self.cap
        after = max(self.full_at, now) + (2 * cost * window + limit) // (2 * limit)  # _added, once a request
        return after if after - now <= window else None

    def accept(self, offer: int, _now: int) -> None:
        self.full_at = offer

    def fill(self, cost: int, now: int) -> None:
        self.full_at = min(max(self.full_at, now) + self._added(cost), now + self.cap.window_us)

    def used(self, now: int) -> int:
        # The service rounds what is left down, so what is used goes up.
        return -((now - self.full_at) * self.cap.limit // self.cap.window_us) if self.full_at > now else 0

    def full_in(self, now: int) -> int:
        return self.full_at - now if self.full_at > now else 0

    def wait_ms(self, cost: int, now: int) -> int:
        over = self.used(now) + cost - self.cap.limit
        return max(over * self.cap.window_us // (self.cap.limit * 1000), 0)


class _Quantised(_Bucket):
    """The service's bucket, and a second's share of it as a second bucket.

    A request larger than a second's share passes when that second is untouched, and is paid off after it.
    """

    __slots__ = ("second_full_at",)

    def __init__(self, cap: Cap) -> None:
        super().__init__(cap)
        self.second_full_at = 0

    def _second_ready_at(self, cost: int) -> int:
        return self.second_full_at - max(SECOND - self._added(cost), 0)

    def offer(self, cost: int, now: int) -> int | None:
        return super().offer(cost, now) if self._second_ready_at(cost) <= now else None

    def accept(self, offer: int, now: int) -> None:
        self.second_full_at = max(self.second_full_at, now) + offer - max(self.full_at, now)
        super().accept(offer, now)

    def fill(self, cost: int, now: int) -> None:
        before = max(self.full_at, now)
        super().fill(cost, now)
        self.second_full_at = min(max(self.second_full_at, now) + self.full_at - before, now + SECOND)

    def wait_ms(self, cost: int, now: int) -> int:
        return max(super().wait_ms(cost, now), -(-(self._second_ready_at(cost) - now) // 1000))


class _Sliding:
    """Sums what was taken in the window that ends now."""

    __slots__ = ("cap", "log", "total")

    def __init__(self, cap: Cap) -> None:
        self.cap = cap
        self.log: deque[tuple[int, int]] = deque()
        self.total = 0

    def _forget(self, now: int) -> None:
        while self.log and self.log[0][0] <= now - self.cap.window_us:
            self.total -= self.log.popleft()[1]

    def offer(self, cost: int, now: int) -> int | None:
        return cost if self.used(now) + cost <= self.cap.limit else None

    def accept(self, offer: int, now: int) -> None:
        self.log.append((now, offer))
        self.total += offer

    def fill(self, cost: int, now: int) -> None:
        self.accept(min(cost, max(self.cap.limit - self.used(now), 0)), now)

    def used(self, now: int) -> int:
        self._forget(now)
        return self.total

    def full_in(self, now: int) -> int:
        self._forget(now)
        return self.log[-1][0] + self.cap.window_us - now if self.log else 0

    def wait_ms(self, cost: int, now: int) -> int:
        over = self.used(now) + cost - self.cap.limit
        for taken_at, taken in self.log:
            over -= taken
            if over <= 0:
                return -(-(taken_at + self.cap.window_us - now) // 1000)
        return 0


class _Fixed:
    """Counts from zero again whenever a window of the server's clock begins."""

    __slots__ = ("cap", "count", "window")

    def __init__(self, cap: Cap) -> None:
        self.cap = cap
        self.window = 0
        self.count = 0

    def offer(self, cost: int, now: int) -> int | None:
        after = self.used(now) + cost
        return after if after <= self.cap.limit else None

    def accept(self, offer: int, _now: int) -> None:
        self.count = offer

    def fill(self, cost: int, now: int) -> None:
        self.count = max(self.used(now), min(self.count + cost, self.cap.limit))

    def used(self, now: int) -> int:
        window = now // self.cap.window_us
        if window != self.window:
            self.window, self.count = window, 0
        return self.count

    def full_in(self, now: int) -> int:
        return self.cap.window_us - now % self.cap.window_us if self.used(now) else 0

    def wait_ms(self, _cost: int, now: int) -> int:
        return -(-(self.cap.window_us - now % self.cap.window_us) // 1000)


_KINDS: dict[Enforcement, Callable[[Cap], Meter]] = {
    "bucket": _Bucket,
    "sliding": _Sliding,
    "fixed": _Fixed,
    "quantised": _Quantised,
}


def meter(cap: Cap, enforce: Enforcement) -> Meter:
    """A meter of the kind; only minutes are quantised."""
    if enforce == "quantised" and cap.window_us != MINUTE:
        return _Bucket(cap)
    return _KINDS[enforce](cap)


class Cost(NamedTuple):
    """What one request takes from each dimension."""

    tokens: int
    images: int = 0
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Overrun:
    """Why a request was not admitted; `wait_ms` is None when waiting cannot help."""

    cap: Cap
    used: int
    requested: int
    wait_ms: int | None


class Counter:
    """All meters a request must pass: the organization's and, where one is set, the project's.

    Meters are asked in the order RPM, RPD, TPM, TPD, images; the first that refuses is the one reported.
    """

    __slots__ = ("asked", "organization", "project", "shown")

    def __init__(self, organization: Iterable[Meter], project: Iterable[Meter] = ()) -> None:
        self.organization: dict[Dimension, Meter] = {each.cap.dimension: each for each in organization}
        self.project: dict[Dimension, Meter] = {each.cap.dimension: each for each in project}
        self.asked: list[tuple[Meter, int]] = self._ordered()
        self.shown: list[tuple[str, Meter]] = self._shown()

    def _ordered(self) -> list[tuple[Meter, int]]:
        """The meters in the order they are asked, each with its place in a cost."""
        tokens, images, requests = range(3)
        places: dict[Dimension, int] = {
            "rpm": requests,
            "rpd": requests,
            "tpm": tokens,
            "tpd": tokens,
            "images": images,
        }
        return [
            (side[dimension], place)
            for dimension, place in places.items()
            for side in (self.organization, self.project)
            if dimension in side
        ]

    def _shown(self) -> list[tuple[str, Meter]]:
        """The meters that headers speak of, each by its name there: a day's hides the minute's."""
        sides = (("", self.organization), ("project-", self.project))
        pairs: tuple[tuple[str, Dimension, Dimension], ...] = (("requests", "rpd", "rpm"), ("tokens", "tpd", "tpm"))
        found = [
            (f"{side}{kind}", meters.get(day) or meters.get(minute))
            for side, meters in sides
            for kind, day, minute in pairs
        ]
        found.append(("input-images", self.organization.get("images")))
        return [(kind, each) for kind, each in found if each is not None]

    def admit(self, cost: tuple[int, int, int], now: int) -> Overrun | None:
        """Takes the cost from every meter, or from none and says why."""
        taken: list[tuple[Meter, int]] = []
        for each, place in self.asked:
            if (amount := cost[place]) == 0:
                continue
            offer = each.offer(amount, now)
            if offer is None:
                used, limit = each.used(now), each.cap.limit
                wait_ms = each.wait_ms(amount, now) if amount <= limit else None
                return Overrun(each.cap, min(used, limit), amount, wait_ms)
            taken.append((each, offer))
        for each, offer in taken:
            each.accept(offer, now)
        return None

    def count_rejected(self, cost: tuple[int, int, int], now: int) -> None:
        """Takes what a refused request would have, as far as the caps go."""
        for each, place in self.asked:
            each.fill(cost[place], now)

    def retune(self, caps: Iterable[Cap]) -> None:
        """Puts other limits on the organization's meters; what is used keeps its place in the window."""
        for each in caps:
            if each.dimension in self.organization:
                self.organization[each.dimension].cap = each
