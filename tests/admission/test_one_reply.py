"""One reply that lies, and a service that refuses everything: neither stops a lane for longer than a minute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from servers import Network, Service, flood, of_tokens

from ratelimit.admission.scheduler import Scheduler
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.headers import Observed, Reading, Refusal

MONTH = 30 * DAY
RPM, TPM, RPD = Limit("requests", 120, MINUTE), Limit("tokens", 60_000, MINUTE), Limit("requests", 10_000, DAY)
NETWORK = Network.steady(0.05, 0.4)


@dataclass
class Liar(Service):
    """A service of which one reply is a lie."""

    lie: Reading | None = None
    at: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.numbers = count(1)

    def headers(self, now: float) -> Observed:
        return Observed(readings=(self.lie,)) if next(self.numbers) == self.at and self.lie else super().headers(now)


@pytest.mark.parametrize("at", [1, 100])
@pytest.mark.parametrize(
    "lie",
    [
        Reading("requests", 500, 0, MONTH),
        Reading("tokens", 100_000, 0, MONTH),
        Reading("requests", 10_000, 0, DAY),
        Reading("requests", 200, 0, DAY),
        Reading("tokens", 600, 0, MINUTE),
        Reading("requests", 1, 0, MINUTE),
        Reading("requests", 999_999_999, 999_999_999, 0.0),
        Reading("tokens", 999_999_999_999, None, None),
    ],
    ids=["month", "month of tokens", "day", "shorter day", "few tokens", "one a minute", "no limit", "endless tokens"],
)
async def test_a_reply_that_lies_costs_no_more_than_a_minute_and_nobody_a_refusal(lie: Reading, at: int) -> None:
    limits = [RPM, TPM, RPD]
    service = Liar({(limit.unit, limit.window): limit.amount for limit in limits}, lie=lie, at=at)
    scheduler = Scheduler({"m": limits})
    await flood(scheduler, service, NETWORK, 360, asks=lambda: of_tokens(400), backlog=20)
    assert service.refusals() == 0
    assert service.count(0, 360) >= 0.99 * RPM.amount * (360 - 60 - (MINUTE if at == 1 else 0)) / MINUTE


async def test_what_a_reply_says_of_a_day_is_believed_of_the_refusal_that_follows() -> None:
    """Somebody has used up the day before we came: that costs one refused request, and no more until some is back."""
    limit = Limit("requests", 200, DAY)
    service, scheduler = Service.of([limit]), Scheduler({"m": [limit]})
    service.counters["requests", DAY].charge(199, 0.0)
    await flood(scheduler, service, NETWORK, 3_600, backlog=20)
    assert service.refusals() == 1
    assert service.count(0, 3_600) == 1 + 3_600 // (86_400 // 200)


OFF, BACK = 60, 360
REACHED = Refusal("reached", "requests", MINUTE, limit=1, used=1, requested=1, wait=None, model="m", bucket=None)


@dataclass
class Stormy(Service):
    """A service that refuses everything for five minutes."""

    told: str = "nothing"

    def judge(self, tokens: float, now: float) -> Observed | None:
        if not OFF <= now < BACK:
            return super().judge(tokens, now)
        self.refused.append((now, "requests", MINUTE))
        limit = self.counters["requests", MINUTE].limit
        named, room = replace(REACHED, limit=limit, used=limit), self.headers(now).readings
        says: dict[str, Any] = {
            "nothing": {},
            "named": {"refusal": named},
            "in a line": {"refusal": replace(named, wait=MINUTE / limit)},
            "nothing left": {"readings": (Reading("requests", limit, 0, 30.0),)},
            "room": {"readings": room},
            "named, and room": {"refusal": named, "readings": room},
        }
        return Observed(**{"retry_after": 1.0, **says[self.told]})


@pytest.mark.parametrize(
    ("told", "rpm", "busy"),
    [
        *((told, 600, True) for told in ("nothing", "named", "in a line", "nothing left", "room", "named, and room")),
        *((told, 30, True) for told in ("in a line", "room")),
        *((told, 600, False) for told in ("named", "nothing left")),
    ],
)
async def test_when_everything_is_refused_little_is_asked_and_all_is_as_before_within_a_minute(
    told: str, rpm: int, busy: bool
) -> None:
    limits = [Limit("requests", rpm, MINUTE)]
    service, scheduler = Stormy({("requests", MINUTE): rpm}, told=told), Scheduler({"m": limits})
    if not busy:
        await flood(scheduler, service, NETWORK, 5, backlog=2)
    await flood(scheduler, service, NETWORK, OFF if busy else 6, backlog=50)
    await flood(scheduler, service, NETWORK, BACK + 120, backlog=50)
    assert service.refusals(OFF, BACK) <= 45
    assert service.refusals(BACK) == 0
    assert service.count(BACK, BACK + 60) > 0
    assert service.count(BACK, BACK + 120) >= 0.97 * rpm * 90 / MINUTE
    assert scheduler.lane("m").ledger.quota.buckets[0].share >= 0.98
