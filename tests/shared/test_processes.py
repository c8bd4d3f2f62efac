"""Real programs, real stores, and the mock service as judge, for a few seconds each.

Programs begin to send together, when all have been started and somebody else has used up what a lane saves up. From
then on the limit is what it refills, and what is there beyond the part of a second that is kept back. The mock counts,
and the time is its loop's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis.asyncio as redis
from redis_server import RedisServer, needed

from ratelimit.admission.shared.redis import PREFIX
from ratelimit.testing.mock import MockServer
from ratelimit.testing.mock.counting import Meter

pytestmark = pytest.mark.real_time

RPM = 1800  # of a model without a day's limit, beside which headers are silent on the minute
KEPT = RPM // 60
PROGRAM = """
import asyncio, sys
import ratelimit

async def main():
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}

    async def bodies():
        while True:
            yield body
            await asyncio.sleep(0)

    async with ratelimit.open(tier="tier-2") as client:
        print("ready", flush=True)
        sys.stdin.readline()
        async for result in client.map(bodies(), window=100):
            print("+" if result.error is None else result.error, flush=True)

asyncio.run(main())
"""


@dataclass
class Mark:
    """What had been admitted at a moment, and what the bucket held."""

    at: float
    admitted: int
    level: float


class Programs:
    """Programs that send all they may."""

    def __init__(self, mock: MockServer, state: Path) -> None:
        self.mock = mock
        self._state = state
        self.running: list[Process] = []

    async def start(self, many: int, shared: str) -> None:
        """Start so many, and wait until each has been answered and has company."""
        environment = os.environ | {
            "OPENAI_BASE_URL": self.mock.base_url,
            "OPENAI_API_KEY": "sk-test",
            "RATELIMIT_SHARED": shared,
            "XDG_STATE_HOME": str(self._state),
        }
        self.running += await asyncio.gather(
            *(
                asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=environment, stdin=PIPE, stdout=PIPE)
                for _ in range(many)
            )
        )
        await self._all_say(b"ready\n")
        self._meter.fill(RPM - KEPT, self._now)
        for each in self.running:
            assert each.stdin
            each.stdin.write(b"go\n")
        for _ in range(10):  # the first go as scouts
            await self._all_say(b"+\n")

    async def _all_say(self, line: bytes) -> None:
        for each in self.running:
            assert each.stdout
            assert await each.stdout.readline() == line

    @property
    def _meter(self) -> Meter:
        service = self.mock.service
        family = service.catalogue.find("gpt-4o-mini")
        assert family
        account = service.accounts.of({"Authorization": "Bearer sk-test"})
        return service.counters.of(account, family).organization["rpm"]

    @property
    def _now(self) -> int:
        return int(self.mock.service.elapsed() * 1e6)

    def mark(self) -> Mark:
        return Mark(self.mock.service.elapsed(), self.mock.stats.admitted, RPM - self._meter.used(self._now))

    def used(self, since: Mark) -> float:
        """How much was admitted since then of what could have been."""
        now = self.mark()
        return (now.admitted - since.admitted) / (RPM / 60 * (now.at - since.at) + since.level - KEPT)

    async def answers(self, seconds: float) -> list[int]:
        """How many answers each has in that time."""
        counts = [0 for _ in self.running]

        async def count(number: int, program: Process) -> None:
            assert program.stdout
            while await program.stdout.readline():
                counts[number] += 1

        counting = [asyncio.create_task(count(*each)) for each in enumerate(self.running)]
        await asyncio.sleep(0.05)  # what has been said before is read
        before = list(counts)
        await asyncio.sleep(seconds)
        after = list(counts)
        for each in counting:
            each.cancel()
        return [last - first for first, last in zip(before, after, strict=True)]


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    async with MockServer(tier="tier-2", rpm=RPM, latency=0.05) as mock:
        started = Programs(mock, tmp_path)
        yield started
        for each in started.running:
            if each.returncode is None:
                each.kill()
                await each.wait()


async def holders(url: str) -> set[str]:
    """Who holds leases, as the server has it."""
    async with redis.from_url(url) as client:
        (key,) = [key async for key in client.scan_iter(match=f"{PREFIX}*")]
        kept: Any = await client.get(key)
    lane: dict[str, Any] = msgspec.msgpack.decode(kept)
    return {holder["id"] for holder in lane["holders"]}


async def test_programs_started_side_by_side_use_the_limit_together(programs: Programs) -> None:
    await programs.start(2, "file")
    since = programs.mark()
    one, two = await programs.answers(4)
    assert 0.95 <= programs.used(since) <= 1.05
    assert 0.9 <= one / two <= 1.1
    assert not programs.mock.stats.refused


async def test_one_is_killed_and_one_is_frozen_for_longer_than_its_lease(
    programs: Programs, redis_server: RedisServer
) -> None:
    url = redis_server.fresh()
    await programs.start(3, url)
    killed, frozen, _ = programs.running
    at_first, since = await holders(url), programs.mark()
    killed.kill()
    frozen.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.5)  # in which the leases of both end
    (left,) = await holders(url)
    alone = programs.mark()
    await asyncio.sleep(1.5)  # of which it is counted how much is used
    assert programs.used(alone) >= 0.94
    frozen.send_signal(signal.SIGCONT)
    await asyncio.sleep(1)  # in which it would send what it held
    assert 0.94 <= programs.used(since) <= 1.05
    assert not programs.mock.stats.refused
    # It has not gone on with what it held: nobody knew whether that had been sent.
    (returned,) = await holders(url) - {left}
    assert left in at_first
    assert returned not in at_first
    assert returned.rpartition(".")[0] in {each.rpartition(".")[0] for each in at_first}


async def test_the_server_is_frozen_and_then_killed_and_restarted_empty(programs: Programs, tmp_path: Path) -> None:
    needed()
    with RedisServer(tmp_path) as server:
        await programs.start(2, server.fresh())
        since = programs.mark()
        server.freeze()
        await asyncio.sleep(1.5)  # each of these for as long as programs go on by what they hold, and longer
        server.thaw()
        await asyncio.sleep(1)
        server.kill()
        await asyncio.sleep(1.5)
        server.start()
        await asyncio.sleep(1)
        assert 0.9 <= programs.used(since) <= 1.05
        assert sum(programs.mock.stats.refused.values()) <= 1
