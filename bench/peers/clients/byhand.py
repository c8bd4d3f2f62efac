"""What people write by hand: aiohttp, two aiolimiter limiters, and tenacity around both.

Requests are charged what the vendor's guide says: the larger of the prompt's tokens and the output asked for.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play, tokens


class Again(Exception):
    """A status that is worth another try."""


async def run(job: Job) -> None:
    """Send all; each attempt takes from both limiters."""
    aiohttp: Any = import_module("aiohttp")
    tenacity: Any = import_module("tenacity")
    limiter: Any = import_module("aiolimiter").AsyncLimiter
    requests, counted = limiter(job.rpm, 60), limiter(job.tpm, 60)

    again: Any = tenacity.retry(
        retry=tenacity.retry_if_exception_type((Again, aiohttp.ClientError)),
        wait=tenacity.wait_random_exponential(multiplier=1, max=60),
        stop=tenacity.stop_after_attempt(1000),
        reraise=True,
    )

    async def attempt_once(session: Any, body: dict[str, Any]) -> None:
        async with requests:
            await counted.acquire(max(tokens(body), body.get("max_tokens", 0)))
            async with session.post(f"{job.base_url}/chat/completions", json=body) as reply:
                await reply.read()
                if reply.status == 429 or reply.status >= 500:
                    raise Again
                reply.raise_for_status()

    attempt = again(attempt_once)

    async def one(session: Any, body: dict[str, Any]) -> None:
        try:
            await attempt(session, body)
        except (Again, aiohttp.ClientError) as error:
            job.failed(error)
        else:
            job.done()

    headers = {"Authorization": "Bearer sk-bench"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session, body) for body in job.bodies))


if __name__ == "__main__":
    play(run, "aiohttp", "aiolimiter", "tenacity")
