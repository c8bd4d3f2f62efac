"""How long a job will take and what it will cost, before a cent is spent.

The time is not computed but lived through: the scheduler that will run the job runs it on a virtual clock, request by
request, against answers that take as long as such answers do. Cost is a range, for nobody knows how long answers will
be: from nothing to the cap each request sets, with the input cached or not.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from ratelimit.admission.scheduler import Scheduler
from ratelimit.errors import RateLimitError
from ratelimit.jobs.mixture import Mixture, mixtures
from ratelimit.jobs.survey import Load, Survey
from ratelimit.limits.bucket import Limit
from ratelimit.limits.tiers import TierLimits
from ratelimit.testing.clock import VirtualClockLoop

_MILLION = 1_000_000
_FIRST_TOKEN = 0.6  # seconds; of the usual order for small models
_TOKENS_PER_SECOND = 100.0  # the middle of what the vendor's pages say of gpt-4o-mini, 60 to 150
_BATCH_ROWS = 50_000  # per file, as the Batch API's guide has it


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars: with all input cached and no output, as expected, and with every answer as long as it may be."""

    least: float
    expected: float
    most: float


@dataclass(frozen=True, slots=True)
class Batches:
    """The same job through the Batch API."""

    cost: float | None
    files: int
    rounds: int | None  # of filling the queue; None where it has no limit


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What a job asks of one lane on one tier."""

    model: str
    requests: int
    input_tokens: int
    charge: int
    seconds: float | None
    binding: str | None
    oversize: int
    cost: Cost | None
    batches: Batches | None
    unusable: str | None = None
    mixtures: tuple[Mixture, ...] = ()


@dataclass(frozen=True, slots=True)
class TierPlan:
    """A job on one tier."""

    tier: str
    lanes: tuple[LanePlan, ...]

    @property
    def seconds(self) -> float | None:
        """How long it takes: lanes run side by side."""
        known = [lane.seconds for lane in self.lanes]
        return None if None in known or not known else max(second for second in known if second is not None)


def plan(
    survey: Survey,
    tier: str,
    limits: dict[str, TierLimits | RateLimitError],
    *,
    concurrency: int,
    deadline: float | None = None,
) -> TierPlan:
    """Plan a surveyed job for one tier, whose limits are given by lane; with a deadline, through both routes too."""
    lanes = []
    for name, load in survey.loads.items():
        allowed = limits[name]
        if isinstance(allowed, RateLimitError):
            lanes.append(_unusable(name, load, survey.scale, str(allowed)))
        else:
            lanes.append(_lane(load, allowed, survey.scale, concurrency, deadline))
    return TierPlan(tier, tuple(lanes))


def fluid_bound(load: Load, limits: tuple[Limit, ...], scale: float = 1.0) -> tuple[float, str | None]:
    """Return the least time that the limits allow, and the one that asks for it: what is not in its burst must flow."""
    needs = {"requests": load.rows * scale, "tokens": sum(load.charges) * scale}
    bounds = [(max(needs[limit.unit] - limit.amount, 0.0) / limit.rate, limit.name) for limit in limits]
    seconds, name = max(bounds, default=(0.0, ""))
    return seconds, name if seconds else None


def lived_through(load: Load, limits: tuple[Limit, ...], *, concurrency: int) -> float:
    """Return how long the scheduler takes for these requests, on a virtual clock."""

    async def job() -> float:
        scheduler = Scheduler({"": limits}, concurrency=concurrency)
        room, clock = asyncio.Semaphore(concurrency), asyncio.get_running_loop().time

        async def one(tokens: float, answer: float) -> None:
            try:
                async with scheduler.reserve("", tokens=tokens) as turn:
                    await asyncio.sleep(_FIRST_TOKEN + answer / _TOKENS_PER_SECOND)
                    turn.used()
            finally:
                room.release()

        async with asyncio.TaskGroup() as tasks:
            for tokens, answer in zip(load.charges, load.expected, strict=True):
                await room.acquire()
                tasks.create_task(one(tokens, answer))
        return clock()

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(job())


def _lane(load: Load, allowed: TierLimits, scale: float, concurrency: int, deadline: float | None) -> LanePlan:
    limits = allowed.limits()
    tpm = next((limit.amount for limit in limits if limit.name == "TPM"), math.inf)
    oversize = sum(tokens > tpm for tokens in load.charges)
    fits = _within(load, tpm) if oversize else load
    bound, binding = fluid_bound(fits, limits, scale)
    seconds = lived_through(fits, limits, concurrency=concurrency)
    if scale > 1:  # a sample tells what comes on top of the bound; the bound itself is of the whole
        small, _ = fluid_bound(fits, limits)
        seconds = bound + max(seconds - small, 0.0)
    cost = _cost(load, scale)
    discount = load.model.prices.batch_discount if load.model.prices else None
    tokens = sum(load.inputs) * scale
    return LanePlan(
        model=load.model.name,
        requests=round(load.rows * scale),
        input_tokens=round(tokens),
        charge=round(sum(load.charges) * scale),
        seconds=seconds,
        binding=binding,
        oversize=round(oversize * scale),
        cost=cost,
        batches=Batches(
            cost=cost.expected * (1 - discount) if cost and discount is not None else None,
            files=_files(load.rows * scale, tokens, allowed.batch_queue),
            rounds=math.ceil(tokens / allowed.batch_queue) if allowed.batch_queue else None,
        ),
        mixtures=mixtures(
            deadline,
            requests=round(load.rows * scale),
            live=seconds,
            queue=min(allowed.batch_queue / tokens, 1.0) if allowed.batch_queue and tokens else 1.0,
            cost=cost.expected if cost else None,
            discount=discount,
        )
        if deadline
        else (),
    )


def _unusable(name: str, load: Load, scale: float, why: str) -> LanePlan:
    return LanePlan(
        model=name,
        requests=round(load.rows * scale),
        input_tokens=round(sum(load.inputs) * scale),
        charge=round(sum(load.charges) * scale),
        seconds=None,
        binding=None,
        oversize=0,
        cost=_cost(load, scale),
        batches=None,
        unusable=why,
    )


def _within(load: Load, tpm: float) -> Load:
    """Return the load without what can never pass."""
    fits = Load(load.model)
    for charge, tokens, cap, expected in zip(load.charges, load.inputs, load.caps, load.expected, strict=True):
        if charge <= tpm:
            fits.charges.append(charge)
            fits.inputs.append(tokens)
            fits.caps.append(cap)
            fits.expected.append(expected)
    return fits


def _cost(load: Load, scale: float) -> Cost | None:
    prices = load.model.prices
    if prices is None:
        return None
    cached = prices.input if prices.cached_input is None else prices.cached_input
    tokens = sum(load.inputs)
    return Cost(
        least=scale * tokens * cached / _MILLION,
        expected=scale * (tokens * prices.input + sum(load.expected) * prices.output) / _MILLION,
        most=scale * (tokens * prices.input + sum(load.caps) * prices.output) / _MILLION,
    )


def _files(rows: float, tokens: float, queue: float | None) -> int:
    """Return how many batch files it takes: each is within its number of rows, and within the queue."""
    return max(math.ceil(rows / _BATCH_ROWS), math.ceil(tokens / queue) if queue else 0)
