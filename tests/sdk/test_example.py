"""The example of the drop-in, run as a user would run it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from ratelimit.testing.mock import MockServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "drop_in.py"


@pytest.mark.real_time
async def test_the_example_answers_all_its_questions() -> None:
    async with MockServer(tier="tier-1") as mock:
        environment = {**os.environ, "OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "sk-test"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLE), stdout=asyncio.subprocess.PIPE, env=environment
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        assert (len(printed.splitlines()), mock.stats.arrived) == (20, 20)
