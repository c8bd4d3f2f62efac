"""Real programs, real stores, and the mock service as judge, for a few seconds each."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer, needed

from ratelimit.testing.mock import MockServer

pytestmark = pytest.mark.real_time

RPM = 600
USED = 0.7  # of limit and refill: the rest is still to be saved up when a lane is not yet empty
PROGRAM = """
import asyncio, sys, time
import ratelimit

async def main(seconds):
    end = time.monotonic() + seconds
    async with ratelimit.open(tier="tier-1") as client:
        async def bodies():
            while time.monotonic() < end:
                yield {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
                await asyncio.sleep(0)
        done = refused = 0
        try:
            async with asyncio.timeout(seconds):
                async for result in client.map(bodies(), window=300):
                    done += 1
        except TimeoutError:
            pass
        print(done, client.count.refused, flush=True)

asyncio.run(main(float(sys.argv[1])))
"""


@pytest.fixture
def shared(request: pytest.FixtureRequest) -> str:
    return "file" if request.param == "file" else str(request.getfixturevalue("redis_server").fresh())


@pytest.fixture
async def mock() -> AsyncIterator[MockServer]:
    async with MockServer(tier="tier-1", rpm=RPM, tpm=100_000_000, latency=0.05) as server:
        yield server


class Programs:
    """Programs that send all they may."""

    def __init__(self, mock: MockServer, shared: str, state: Path) -> None:
        self._environment = os.environ | {
            "OPENAI_BASE_URL": mock.base_url,
            "OPENAI_API_KEY": "sk-test",
            "RATELIMIT_SHARED": shared,
            "XDG_STATE_HOME": str(state),
        }
        self.running: list[subprocess.Popen[str]] = []

    def start(self, seconds: float, **settings: str) -> subprocess.Popen[str]:
        environment = self._environment | {f"RATELIMIT_{name.upper()}": text for name, text in settings.items()}
        command = (sys.executable, "-c", PROGRAM, str(seconds))
        program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self.running.append(program)
        return program

    async def ends(self) -> list[tuple[int, int]]:
        """What each was answered, and how often it was refused."""
        said = await asyncio.gather(*(asyncio.to_thread(each.communicate) for each in self.running))
        return [(int(out.split()[0]), int(out.split()[1])) for out, _ in said if out]


@pytest.fixture
def programs(mock: MockServer, shared: str, tmp_path: Path) -> Iterator[Programs]:
    started = Programs(mock, shared, tmp_path)
    yield started
    for each in started.running:
        if each.poll() is None:
            each.kill()
            each.wait()


def cap(seconds: float) -> float:
    return RPM + RPM / 60 * seconds


def judged(mock: MockServer, seconds: float, least: float) -> None:
    """The service has admitted what it may, nearly, and has had to refuse next to nothing."""
    seen = mock.stats
    assert seen.admitted >= least * cap(seconds)
    assert sum(seen.refused.values()) <= max(0.002 * seen.admitted, 1)


@pytest.mark.parametrize("shared", ["file"], indirect=True)
async def test_programs_started_side_by_side_use_the_limit_together(programs: Programs, mock: MockServer) -> None:
    programs.start(9)
    programs.start(9)
    ends = await programs.ends()
    judged(mock, 7.5, USED)
    assert 0.8 <= ends[0][0] / ends[1][0] <= 1.25


@pytest.mark.parametrize("shared", ["redis"], indirect=True)
async def test_one_is_killed_and_one_is_frozen_for_a_while(programs: Programs, mock: MockServer) -> None:
    programs.start(11)
    frozen, killed = programs.start(11), programs.start(11)
    await asyncio.sleep(4)
    killed.kill()
    await asyncio.sleep(1)
    frozen.send_signal(signal.SIGSTOP)
    await asyncio.sleep(3)
    frozen.send_signal(signal.SIGCONT)
    await programs.ends()
    judged(mock, 9.5, USED)


@pytest.mark.parametrize("how", ["frozen", "killed and restarted empty"])
async def test_the_server_is_away_for_six_seconds(how: str, mock: MockServer, tmp_path: Path) -> None:
    needed()
    with RedisServer(tmp_path) as server:
        programs = Programs(mock, server.fresh(), tmp_path)
        programs.start(13)
        programs.start(13)
        await asyncio.sleep(4)
        if how == "frozen":
            server.freeze()
            await asyncio.sleep(6)
            server.thaw()
        else:
            server.kill()
            await asyncio.sleep(6)
            server.start()
        await programs.ends()
        judged(mock, 11.5, USED)
