"""What every front door goes through: size up a request, wait for its turn, learn from the reply, settle.

The gate knows models and charges, which the scheduler does not: a scheduler counts whatever it is told to count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from ratelimit.admission.lane import Lane
from ratelimit.admission.scheduler import Scheduler
from ratelimit.admission.turn import Turn
from ratelimit.limits.bucket import MINUTE, Bucket
from ratelimit.limits.charge import Formula, Size, billed_input, check, measure
from ratelimit.limits.charging import Charging
from ratelimit.limits.content import CHAT_PATH
from ratelimit.limits.drift import charged, way_of
from ratelimit.limits.headers import Observed
from ratelimit.limits.quota import Cost, Quota
from ratelimit.limits.tiers import Model

_CHARGE = "charge"  # what a ledger calls how the service charges
_SHORT = 100_000  # bytes; no text has more tokens than bytes, and no model calls fewer tokens than this a long input

Settling = Literal["headers", "usage", "estimate"]
"""What corrects an estimate: the server's headers or else the usage in the reply; always the usage; nothing."""


class Gate:
    """Turns for requests to models."""

    def __init__(
        self,
        scheduler: Scheduler,
        find: Callable[[str], Model],
        *,
        for_input: Callable[[str, int], Model] | None = None,
        formula: Formula | None = None,
        charges: Settling = "headers",
    ) -> None:
        self.scheduler = scheduler
        self.charges = charges
        self._find = find
        self._for_input = for_input
        self._formula = formula
        self._charging: dict[str, Charging] = {}

    def turn(
        self,
        body: Mapping[str, object],
        path: str = CHAT_PATH,
        *,
        priority: float = 0,
        arrival: int | None = None,
        wait_at_most: float | None = None,
    ) -> GateTurn:
        """Return the turn of one request; raises at once for one that no waiting can help.

        The body must not change while the turn is open. A retry passes the `arrival` of its first turn.
        """
        size = measure(body, path)
        model = self._find(size.model)
        lane = self.scheduler.lane(self._lane_of(size, model))
        if (charging := self._charging.get(lane.name)) is None:
            charging = self._charging[lane.name] = Charging(self._formula)
        charging.adopt(lane.ledger.facts.get(_CHARGE))
        minute = _minute(lane.ledger.quota)
        check(size, model, minute.limit if minute and minute not in lane.ledger.quota.unsure else None)
        if arrival is None:
            arrival = self.scheduler.arrive()
        cost = _cost(size, model, charging, minute)
        turn = GateTurn(lane, cost, priority=priority, arrival=arrival, wait_at_most=wait_at_most)
        turn.size, turn.model, turn.charging, turn.charges = size, model, charging, self.charges
        return turn

    def model(self, name: str) -> Model:
        """Return the family that a model belongs to."""
        return self._find(name)

    def _lane_of(self, size: Size, model: Model) -> str:
        """Return the name of the family whose limits count: some have others for long inputs."""
        if self._for_input is None or size.utf8_bytes < _SHORT:
            return model.name
        return self._for_input(model.name, billed_input(size, model)).name


def _cost(size: Size, model: Model, charging: Charging, minute: Bucket | None) -> Cost:
    """Return what to reserve, by what is known of the server's charges now."""
    if minute is None:
        return {"requests": 1}
    # A careful formula refuses nothing that may well pass.
    tokens = min(charging.estimate(size, model), minute.limit.amount)
    return {"requests": 1, "tokens": tokens} if tokens else {"requests": 1}


class GateTurn(Turn):
    """A turn that also learns what the server charges."""

    __slots__ = ("charges", "charging", "model", "size")

    size: Size
    model: Model
    charging: Charging
    charges: Settling

    @property
    def lane(self) -> Lane:
        """The lane it stands in."""
        return self._lane

    @property
    def sent_at(self) -> float:
        """When its request left; before the beginning of time where it has not."""
        return -math.inf if self._hold is None or self._hold.sent_at is None else self._hold.sent_at

    def _pricing(self) -> Callable[[], Cost]:
        return self._price

    def _price(self) -> Cost:
        """Return the estimate anew: while it waited, a reply may have shown how the server charges."""
        return _cost(self.size, self.model, self.charging, _minute(self._lane.ledger.quota))

    def observe(self, observed: Observed) -> None:
        """Learn from the headers of a reply that was not refused."""
        hold, quota = self._held(), self._lane.ledger.quota
        super().observe(observed)  # first, for the limit may be another than the table's
        way = way_of(quota, hold, observed, self._lane.loop.time())
        for reading in observed.readings:
            bucket = _minute(quota)
            if bucket and (reading.unit, reading.limit) == ("tokens", bucket.limit.amount):
                amount, tokens = bucket.limit.amount, hold.cost.get("tokens", 0)
                taken, alone = charged(quota, hold, bucket, reading, way), True
                if taken is None and reading.remaining is not None and 0 < amount - reading.remaining < tokens:
                    taken, alone = amount - reading.remaining, False  # no more than that, whoever else took of it
                charging = self.charging
                if taken is not None and charging.learn(self.size, self.model, taken, amount, at_most=not alone):
                    self._lane.ledger.note(_CHARGE, " ".join(charging.formulas))

    def used(self, *, tokens: float | None = None) -> None:
        """End the turn: it was answered, and its usage says so many tokens."""
        if self.charges == "estimate":
            super().used()
        else:
            super().used(tokens=tokens)


def _minute(quota: Quota) -> Bucket | None:
    for bucket in quota.buckets:
        limit = bucket.limit
        if limit.unit == "tokens" and limit.window == MINUTE:
            return bucket
    return None
