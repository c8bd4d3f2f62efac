"""The page on the scheduler: its code runs, and it names every event and setting."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

from ratelimit.admission.events import Event
from ratelimit.admission.scheduler import Scheduler

PAGE = (Path(__file__).parents[2] / "docs" / "scheduler.md").read_text(encoding="utf-8")


async def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    async def send(prompt: str) -> str:
        await asyncio.sleep(1)
        return f"answer to {prompt}"

    async def send_for_headers(prompt: str) -> dict[str, str]:
        return {"x-ratelimit-limit-tokens": "100000", "x-ratelimit-remaining-tokens": "99200"}

    page: dict[str, Any] = {"send": send, "send_for_headers": send_for_headers}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "scheduler.md", "exec"), page)
    assert (await page["main"]())[-1] == "answer to question 99"
    scheduler = page["watched"]()
    await page["ask_and_learn"](scheduler, "how?")
    assert [limit.limit for limit in scheduler.snapshot()[0].limits] == [500, 100_000]
    assert await page["decorated"](scheduler)("why?") == "answer to why?"
    page["save"](scheduler, tmp_path / "spent.json")
    resumed = page["take_up"](tmp_path / "spent.json")
    resumed.lane("o4-mini")
    tokens = resumed.snapshot()[0].limits[1]
    assert tokens.level < tokens.limit - tokens.reserve  # what it took is not all back yet


def test_the_page_names_every_event_and_setting() -> None:
    for event in Event.__subclasses__():
        assert f"| `{event.__name__}` |" in PAGE
    for name, setting in inspect.signature(Scheduler).parameters.items():
        if name != "limits":
            assert f"`{name}`" in PAGE
        if isinstance(setting.default, (int, float)) and name != "elapsed":
            assert f"| `{name}` | {setting.default} |" in PAGE
