"""LangChain: ChatOpenAI with an InMemoryRateLimiter, through `abatch`, retrying until the answer comes.

The limiter knows requests only, so where tokens bind it is set to what the job's mean size allows.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play, tokens

RETRIES = 10_000
IN_FLIGHT = 100


async def run(job: Job) -> None:
    """Send all as one batch."""
    limiters: Any = import_module("langchain_core.rate_limiters")
    chat: Any = import_module("langchain_openai")
    mean = sum(tokens(body) for body in job.bodies) / len(job.bodies)
    limiter = limiters.InMemoryRateLimiter(
        requests_per_second=min(job.rpm, job.tpm / mean) / 60,
        check_every_n_seconds=0.1,
        max_bucket_size=min(job.rpm, job.tpm / mean),
    )
    model = chat.ChatOpenAI(
        model=job.bodies[0]["model"],
        base_url=job.base_url,
        api_key="sk-bench",
        max_retries=RETRIES,
        max_tokens=job.bodies[0].get("max_tokens"),
        rate_limiter=limiter,
    )
    prompts = [[(message["role"], message["content"]) for message in body["messages"]] for body in job.bodies]
    batch = model.abatch_as_completed(prompts, config={"max_concurrency": IN_FLIGHT}, return_exceptions=True)
    async for _, answer in batch:
        if isinstance(answer, Exception):
            job.failed(answer)
        else:
            job.done()


if __name__ == "__main__":
    play(run, "langchain_core.rate_limiters", "langchain_openai")
