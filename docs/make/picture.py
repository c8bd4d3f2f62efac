"""Make docs/run.svg, what a terminal shows of `ratelimit run`: `python docs/make/picture.py`.

A real job against the mock server at Tier 1, over sockets and on a virtual clock, so that the same picture comes
out each time and at once. What is drawn is the live panel itself, a minute and a half into the run.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from ratelimit.jobs import job as jobs
from ratelimit.jobs.budget import Options
from ratelimit.jobs.progress import panel
from ratelimit.jobs.source import Source
from ratelimit.jobs.standing import look
from ratelimit.settings import load_settings
from ratelimit.testing import run
from ratelimit.testing.mock import MockServer

PICTURE = Path(__file__).parents[1] / "run.svg"
ROWS = 2_000
MOMENT = 90  # seconds into the run
COLUMNS = 92
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Camera(jobs.Watcher):
    """Watches a run as the live panel does, and keeps what it would show at one moment."""

    def __init__(self) -> None:
        self.seen: RenderableType = ""

    async def watch(self, run: jobs.Watched, client: jobs.Sending) -> None:
        """Keep the panel of the moment."""
        await asyncio.sleep(MOMENT)
        self.seen = panel(look(run, client))


async def picture(place: Path) -> str:
    """Run a job in a directory; returns the picture."""
    requests, camera = place / "requests.jsonl", Camera()
    requests.write_text("".join(f"{json.dumps(_line(number))}\n" for number in range(ROWS)), encoding="utf-8")
    async with MockServer(tier="tier-1", models=["gpt-4o-mini"], latency="0.4-3", output_tokens="20-90") as mock:
        settings = load_settings(base_url=mock.base_url, api_key="sk-mock", tier="tier-1")
        job = jobs.Job(Source(str(requests)), place / "results.jsonl", Options())
        await jobs.run(job, settings, say=lambda _: None, watcher=camera)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "green"), "ratelimit run requests.jsonl -o results.jsonl --tier tier-1"))
    console.print(camera.seen)
    # Fonts would be fetched from elsewhere; any monospaced one will do.
    return _FONTS.sub("", console.export_svg(title="ratelimit run", unique_id="run"))


def _line(number: int) -> dict[str, object]:
    question = {"role": "user", "content": f"Say in one sentence what is special about the number {number}."}
    body = {"model": "gpt-4o-mini", "messages": [question], "max_completion_tokens": 100}
    return {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def main() -> int:
    """Make the picture."""
    with tempfile.TemporaryDirectory() as place:
        PICTURE.write_text(run(picture(Path(place))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
