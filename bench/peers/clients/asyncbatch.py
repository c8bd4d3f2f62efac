"""async-batch-llm: its streaming batch function with both limits in its configuration, as its page shows it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play

IN_FLIGHT = 50


async def run(job: Job) -> None:
    """Send all prompts at once, and take results as they come."""
    batch: Any = import_module("async_batch_llm")
    cap = job.bodies[0].get("max_tokens", 256)
    strategy = batch.llm(
        f"openai-compatible:{job.bodies[0]['model']}",
        base_url=job.base_url,
        api_key="sk-bench",
        generation_config={"max_tokens": cap},
    )
    config = batch.ProcessorConfig(
        concurrency=IN_FLIGHT,
        max_requests_per_minute=job.rpm,
        max_tokens_per_minute=job.tpm,
        token_estimator=batch.CharacterTokenEstimator(expected_output_tokens=cap),
        quota_burst_seconds=60.0,  # as large a bucket as the service has
        rate_limit=batch.RateLimitConfig(cooldown_seconds=1.0, slow_start_items=0),  # 300 s by default
        retry=batch.RetryConfig(max_attempts=1000, max_rate_limit_retries=10_000),
    )
    prompts = [body["messages"][0]["content"] for body in job.bodies]
    async for result in batch.process_stream(strategy, prompts, config=config):
        if result.success:
            job.done()
        else:
            job.failed(result.error or "no answer")


if __name__ == "__main__":
    play(run, "async_batch_llm", "openai")
