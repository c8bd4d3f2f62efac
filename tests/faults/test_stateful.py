"""Requests, faults, lies, cancels, pauses and restarts in any order, against the mock in virtual time.

A scenario is a list of steps, and shrinks to the fewest that still break something. Whatever happens: no limit refuses,
but twice at most where the service has lied; each request ends as an answer, an error of ours or a cancel; nobody holds
anything at the end; and once the service answers, whatever is left is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from hypothesis import example, given, settings
from hypothesis import strategies as st
from wire_rig import ask

from ratelimit.admission.events import Event, Granted, Settled
from ratelimit.compose import make_client
from ratelimit.errors import RateLimitError
from ratelimit.settings import load_settings
from ratelimit.testing.clock import run
from ratelimit.testing.mock import Limits, MockServer
from ratelimit.testing.mock.sabotage import ABSURD
from ratelimit.wire.messages import Reply

RPM, TPM = 60, 30_000
MODELS = ("gpt-4o-mini", "gpt-4.1-mini")
WHOLE_WAITS = 21_600.0  # seconds; twelve times ninety of the longest take 16,700, and there are waits after faults

Step = tuple[Any, ...]
UPSETS = ("500", "503", "overloaded", "slow_down", "storm", "reset", "cut", "length", "html", "truncated")
LIES = tuple(f"headers:variant={name}" for name in ABSURD)
SLOW = ("hang:seconds=90", "stall:seconds=200", "drip:bytes=200,seconds=1", "no_headers")


class World:
    """A mock, the client of the moment, and all requests there have ever been."""

    def __init__(self, mock: MockServer) -> None:
        self.mock = mock
        self.tasks: list[asyncio.Task[Reply]] = []
        self.cancelled: set[asyncio.Task[Reply]] = set()
        self.granted = self.settled = 0
        self.lies = 0  # replies whose headers are not so, or not there

    async def __aenter__(self) -> Self:
        await self._start({}, 0.0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.__aexit__(None, None, None)

    async def _start(self, spent: dict[str, dict[str, float]], elapsed: float) -> None:
        told = load_settings(
            tier="tier-1", rpm=RPM, tpm=TPM, api_key="sk-0123456789", base_url=self.mock.base_url, concurrency=50
        )
        self.client = make_client(told, observer=self, spent=spent, elapsed=elapsed)
        await self.client.__aenter__()

    def __call__(self, event: Event) -> None:
        """Count the turns that began and ended."""
        if isinstance(event, Granted):
            self.granted += 1
        elif isinstance(event, Settled):
            self.settled += 1

    async def do(self, step: Step) -> None:
        match step:
            case ("send", count, model, length, tokens):
                body = {**ask("x" * length, max_tokens=tokens), "model": model}
                self.tasks += [asyncio.create_task(self.client.send(body)) for _ in range(count)]
                await asyncio.sleep(0)
            case ("cancel", place):
                if open_ones := [task for task in self.tasks if not task.done()]:
                    chosen = open_ones[place % len(open_ones)]
                    chosen.cancel()
                    self.cancelled.add(chosen)
            case ("fault", spec, times):
                if spec.startswith(("headers", "no_headers", "storm")):
                    self.lies += times
                self.mock.fault(f"{spec}{',' if ':' in spec else ':'}times={times}")
            case ("pause", seconds):
                await asyncio.sleep(seconds)
            case ("restart", seconds):
                await self._restart(seconds)

    async def _restart(self, seconds: float) -> None:
        """What waits is cancelled and what is under way waited for, as one who stops in order does."""
        for task in self.tasks:
            if not task.done():
                task.cancel()
                self.cancelled.add(task)
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.nothing_is_held()
        spent = self.client.sender.gate.scheduler.spent()
        await self.client.__aexit__(None, None, None)
        await asyncio.sleep(seconds)
        await self._start(spent, seconds)

    def nothing_is_held(self) -> None:
        assert self.granted == self.settled
        assert all((lane.waiting, lane.in_flight) == (0, 0) for lane in self.client.snapshot()), self.client
        assert not self.client.sender._waiting
        assert not self.client.sender._dismissed

    async def settle(self) -> None:
        """End the faults, and see that everything ends."""
        self.mock.clear_faults()
        if self.tasks:
            _, hanging = await asyncio.wait(self.tasks, timeout=WHOLE_WAITS)
            assert not hanging, self.client
        for task in self.tasks:
            if task.cancelled():
                assert task in self.cancelled
            elif error := task.exception():
                assert isinstance(error, RateLimitError), error
            else:
                assert task.result().json()["choices"], task
        last = asyncio.create_task(self.client.send(ask("are you there?", max_tokens=10)))
        async with asyncio.timeout(WHOLE_WAITS):
            assert (await last).status == 200
        self.nothing_is_held()


async def assert_all_ends_well(steps: Sequence[Step]) -> None:
    # Of the first, headers speak of the day and not of the minute: what was spent before a restart is not told by them.
    limits = {MODELS[0]: Limits(rpm=RPM, tpm=TPM, rpd=10_000), MODELS[1]: Limits(rpm=RPM, tpm=TPM)}
    async with MockServer(models=limits, latency=(0.2, 3.0)) as mock, World(mock) as world:
        for step in steps:
            await world.do(step)
        await world.settle()
        assert sum(mock.stats.refused[limit] for limit in ("rpm", "tpm", "rpd")) <= min(world.lies, 2), (
            mock.stats.refused
        )
    await asyncio.sleep(1)  # in which the loop lets go of connections that were reset


pauses = st.sampled_from([0.0, 0.05, 1.0, 7.0, 61.0])
sends = st.tuples(
    st.just("send"),
    st.sampled_from([1, 20, 90]),
    st.sampled_from(MODELS),
    st.sampled_from([1, 800, 30_000]),
    st.integers(1, 900),
)
faults = st.tuples(st.just("fault"), st.sampled_from([*UPSETS, *LIES, *SLOW]), st.integers(1, 60))
steps = st.lists(
    sends
    | faults
    | sends
    | st.tuples(st.just("pause"), pauses)
    | st.tuples(st.just("cancel"), st.integers(0, 99))
    | st.tuples(st.just("restart"), pauses),
    min_size=1,
    max_size=12,
)


SMALL = ("send", 90, MODELS[0], 1, 1)


@example([SMALL, ("pause", 7.0), ("restart", 0.0), SMALL])  # what was spent is nowhere but in what the first has left
@example([("send", 90, MODELS[1], 30_000, 1)] * 3)  # more than an hour's tokens
@settings(max_examples=max(80, settings().max_examples // 10), deadline=None)
@given(steps)
def test_whatever_happens_nothing_is_lost_leaked_or_refused(steps: list[Step]) -> None:
    run(assert_all_ends_well(steps))
