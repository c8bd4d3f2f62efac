"""The official SDK as its guide shows it: one client, a semaphore, and its own retries, which obey Retry-After.

Two retries are the default and lose most of a job; here it may retry until the answer comes.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play

IN_FLIGHT = 50
RETRIES = 10_000


async def run(job: Job) -> None:
    """Send all at once, so many at a time."""
    openai: Any = import_module("openai")
    client = openai.AsyncOpenAI(base_url=job.base_url, api_key="sk-bench", max_retries=RETRIES, timeout=60)
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(body: dict[str, Any]) -> None:
        async with slots:
            try:
                await client.chat.completions.create(**body)
            except openai.OpenAIError as error:
                job.failed(error)
            else:
                job.done()

    await asyncio.gather(*(one(body) for body in job.bodies))


if __name__ == "__main__":
    play(run, "openai")
