"""token-throttle: its limiter in memory around the official SDK, each request reserved and settled by its usage."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play, tokens

RETRIES = 10_000


async def run(job: Job) -> None:
    """Send all at once; the limiter says when."""
    throttle: Any = import_module("token_throttle")
    openai: Any = import_module("openai")
    quotas = [
        throttle.Quota(metric="requests", limit=job.rpm, per_seconds=60),
        throttle.Quota(metric="tokens", limit=job.tpm, per_seconds=60),
    ]
    limiter = throttle.RateLimiter(
        throttle.PerModelConfig(quotas=throttle.UsageQuotas(quotas)), backend=throttle.MemoryBackendBuilder()
    )
    client = openai.AsyncOpenAI(base_url=job.base_url, api_key="sk-bench", max_retries=RETRIES, timeout=60)

    async def one(body: dict[str, Any]) -> None:
        reserved = {"requests": 1, "tokens": tokens(body) + body.get("max_tokens", 0)}
        try:
            async with limiter.reserve(reserved, model=body["model"]) as handle:
                reply = await client.chat.completions.create(**body)
                handle.set_actual_usage({"requests": 1, "tokens": reply.usage.total_tokens})
        except Exception as error:  # noqa: BLE001 - a loser is counted, whatever lost it
            job.failed(error)
        else:
            job.done()

    await asyncio.gather(*(one(body) for body in job.bodies))
    await limiter.aclose()


if __name__ == "__main__":
    play(run, "token_throttle", "openai")
