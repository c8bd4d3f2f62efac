"""One cell of the table of tiers on a virtual clock: a lane that always has somebody waiting, and a scripted service.

The service is that of the tests, which counts in its own naive way; requests are 20 to 900 ms on the way to it and are
answered after 0.3 to 30 s. Two workloads: requests so small that their number is the limit, and large ones of mixed
sizes of which the tokens are.

What the cap would have allowed is a fluid bound: a bucket as large as the limit, full at the start, out of which
requests run without any delay, in the order in which they reached the service. How long after that bound each request
reached the service is the waiting beyond what the cap demands. It has in it the way there and the second of refill that
is kept back.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from ratelimit.admission.gate import Gate
from ratelimit.admission.scheduler import Scheduler
from ratelimit.admission.turn import Turn
from ratelimit.limits.bucket import DAY, MINUTE, Limit
from ratelimit.limits.tiers import Model
from ratelimit.testing.clock import run
from ratelimit.testing.mock.asks import chat
from ratelimit.testing.mock.charges import Profile, charge

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Network, Service, until_answered

BACKLOG = 200
_SPARE = 4  # of the limit that does not bind, this many times what is used
_ROOM = 100_000  # in flight: more than any cell can have


@dataclass(frozen=True, slots=True)
class Setting:
    """How a cell is played."""

    enforce: str = "bucket"
    charge: Profile | None = None
    seed: int = 1
    opening: float = MINUTE
    horizon: float = 10 * MINUTE


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody's request: the turn to wait for, by its place in line, and what the service will charge."""

    turn: Callable[[int], Turn]
    charged: float


Asks = Callable[[Scheduler], Callable[[], Ask]]


def sizes(
    limits: Mapping[tuple[str, float], float], bound: str, rng: random.Random, enforce: str
) -> Callable[[], float] | None:
    """Return what draws the tokens of a request, or None where this limit cannot be the one that binds."""
    rpm, tpm = limits.get(("requests", MINUTE)), limits.get(("tokens", MINUTE))
    part = 60 if enforce == "quantised" else 10  # what is more than a second's part never passes there
    if rpm and enforce == "quantised" and rpm < part:
        return None
    if bound != "TPM":
        each = max(tpm / rpm / _SPARE, 1.0) if tpm and rpm else 1.0
        return lambda: each
    if not rpm or not tpm or tpm / rpm * _SPARE > tpm / part / 2:
        return None  # a single request would be a large part of the minute
    mean, most = tpm / rpm * _SPARE, tpm / part
    # Lognormal sizes whose mean is what is wanted: exp(mu + sigma^2 / 2).
    return lambda: min(rng.lognormvariate(0.0, 0.8) * mean / 1.377, most)


def exactly(draw: Callable[[], float]) -> Asks:
    """Return requests whose charge is known beforehand."""

    def asks(scheduler: Scheduler) -> Callable[[], Ask]:
        def ask() -> Ask:
            tokens = draw()
            return Ask(lambda arrival: scheduler.reserve("m", tokens=tokens, arrival=arrival), tokens)

        return ask

    return asks


def estimated(draw: Callable[[], float], model: Model, profile: Profile) -> Asks:
    """Return chat requests whose charge is estimated from their bodies, as a client does, and learnt from replies."""

    def asks(scheduler: Scheduler) -> Callable[[], Ask]:
        gate = Gate(scheduler, lambda _: model)

        def ask() -> Ask:
            # Half of what is meant to be charged is text, half is output that is asked for.
            text = "words in " * max(round(draw() * 4 / 9 / 2), 1)
            body = {
                "model": model.name,
                "messages": [{"role": "user", "content": text}],
                "max_tokens": len(text) // 4,
            }
            return Ask(
                lambda arrival: gate.turn(body, arrival=arrival),
                charge(chat(json.dumps(body).encode()), "chat", profile),
            )

        return ask

    return asks


async def fill(scheduler: Scheduler, service: Service, network: Network, asks: Asks, until: float) -> None:
    """Send for so long, with the same number waiting all the time."""
    loop = asyncio.get_running_loop()
    next_ask, arrivals, tasks = asks(scheduler), count(1), set[asyncio.Task[None]]()

    def one_more() -> None:
        if loop.time() < until:
            task = loop.create_task(send(next_ask(), next(arrivals)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def send(ask: Ask, arrival: int) -> None:
        await until_answered(
            lambda: ask.turn(arrival),
            service,
            network,
            ask.charged,
            begun=one_more,
        )

    for _ in range(BACKLOG):
        one_more()
    await asyncio.sleep(until)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def play(limits: Sequence[Limit], bound: str, setting: Setting, model: Model | None = None) -> dict[str, Any] | None:
    """Return how one cell went, or None where the workload cannot be made for it."""
    amounts = {(limit.unit, limit.window): limit.amount for limit in limits}
    draw = sizes(amounts, bound, random.Random(setting.seed), setting.enforce)
    if draw is None:
        return None
    asks = estimated(draw, model, setting.charge) if setting.charge and model else exactly(draw)
    service = Service.of(limits, kind=setting.enforce)

    async def whole() -> None:
        scheduler = Scheduler({"m": limits, model.name if model else "m": limits}, concurrency=_ROOM)
        await fill(scheduler, service, Network.rough(setting.seed), asks, setting.horizon)

    start = perf_counter()
    run(whole())
    unit = "tokens" if bound == "TPM" else "requests"
    window = DAY if bound == "RPD" else MINUTE
    cap = amounts[unit, window]
    used, span = throughput(
        [(at, tokens if unit == "tokens" else 1) for at, tokens in service.admitted], setting.opening
    )
    late = sorted(beyond(service.admitted, limits))
    return {
        "bound": bound,
        "cap": cap,
        "achieved": round(used / span * window, 1),
        "utilisation": round(used / span * window / cap, 5),
        "admitted": len(service.admitted),
        "refused": len(service.refused),
        "refused_late": service.refusals(setting.horizon / 2),
        "wait_p50": round(late[len(late) // 2], 2),
        "wait_p99": round(late[int(len(late) * 0.99)], 2),
        "seconds": round(perf_counter() - start, 1),
    }


def throughput(admitted: Sequence[tuple[float, float]], opening: float) -> tuple[float, float]:
    """Return what was admitted after the opening, and in how many seconds: from one admission to the last.

    What follows the first of them is counted: a stretch that begins or ends at any other moment gains or loses a part
    of a request, which may be large.
    """
    later = [(at, amount) for at, amount in admitted if at >= opening]
    if len(later) < 2:
        return 0.0, 1.0
    return sum(amount for _, amount in later[1:]), later[-1][0] - later[0][0]


def beyond(admitted: Iterable[tuple[float, float]], limits: Iterable[Limit]) -> list[float]:
    """Return how many seconds after the fluid bound each request reached the service."""
    held = [(limit.unit == "tokens", limit.amount, limit.window / limit.amount) for limit in limits]
    found, tokens = [], 0.0
    for number, (at, size) in enumerate(admitted, 1):
        tokens += size
        bound = max(((tokens if in_tokens else number) - amount) * each for in_tokens, amount, each in held)
        found.append(at - max(bound, 0.0))
    return found
