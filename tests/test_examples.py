"""The examples: short, and each runs against the mock as a user would run it. The drop-in's runs in tests/sdk."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from ratelimit.testing.mock import MockServer

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ["a_file", "drop_in", "one_call", "priorities", "streaming", "your_own_function"]


async def shown(name: str, given: str = "") -> tuple[list[str], int]:
    """Run an example; returns what it printed, and how many requests arrived."""
    async with MockServer(tier="tier-1", latency=0.05, seed=1) as mock:
        environment = {**os.environ, "OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "sk-test"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / f"{name}.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        printed, _ = await process.communicate(given.encode())
        assert process.returncode == 0
        return printed.decode().splitlines(), mock.stats.arrived


def test_there_are_six_and_all_are_short() -> None:
    others = {"demo", "ray_job"}  # a show for a terminal, and one that tests/cluster runs where Ray is
    assert sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in others) == NAMES
    assert all(len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) <= 40 for name in NAMES)


@pytest.mark.real_time
async def test_one_call() -> None:
    printed, arrived = await shown("one_call")
    assert (len(printed), arrived) == (1, 1)


@pytest.mark.real_time
async def test_a_file() -> None:
    printed, arrived = await shown("a_file", "one?\n\ntwo?\nthree?\n")
    assert arrived == 3
    assert sorted((row["line"], bool(row["text"])) for row in map(json.loads, printed)) == [
        (0, True),
        (1, True),
        (2, True),
    ]


@pytest.mark.real_time
async def test_streaming() -> None:
    printed, arrived = await shown("streaming")
    assert arrived == 1
    assert len(printed[0].split()) > 1


@pytest.mark.real_time
async def test_priorities() -> None:
    printed, arrived = await shown("priorities")
    assert arrived == 41
    assert sum(line.startswith("batch ") for line in printed) == 40
    place = next(number for number, line in enumerate(printed) if line.startswith("person "))
    assert place < 30, "a person passes what waits of the batch"


@pytest.mark.real_time
async def test_your_own_function() -> None:
    printed, arrived = await shown("your_own_function")
    assert arrived == 0
    assert printed[0] == str([2 * number for number in range(10)])
    assert printed[1].startswith("<Scheduler my-service: 0 waiting, 0 in flight")
