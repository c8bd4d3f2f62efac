"""lm-deluge: its client with the limits, as its page shows it; a registered model names the endpoint."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play

ATTEMPTS = 10_000


async def run(job: Job) -> None:
    """Send all prompts in one call."""
    os.environ["BENCH_KEY"] = "sk-bench"
    deluge: Any = import_module("lm_deluge")
    models: Any = import_module("lm_deluge.models")
    name = job.bodies[0]["model"]
    models.register_model(
        id="bench", name=name, api_base=job.base_url, api_key_env_var="BENCH_KEY", api_spec="openai", provider="openai"
    )
    client = deluge.LLMClient(
        "bench",
        max_requests_per_minute=job.rpm,
        max_tokens_per_minute=job.tpm,
        max_concurrent_requests=225,
        max_new_tokens=job.bodies[0].get("max_tokens", 512),
        max_attempts=ATTEMPTS,
        progress="manual",
    )
    prompts = [body["messages"][0]["content"] for body in job.bodies]
    for answer in await client.process_prompts_async(prompts, show_progress=False):
        if answer is None or answer.is_error:
            job.failed("no answer" if answer is None else str(answer.error_message))
        else:
            job.done()


if __name__ == "__main__":
    play(run, "lm_deluge", "lm_deluge.models")
