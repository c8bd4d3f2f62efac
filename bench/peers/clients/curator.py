"""bespokelabs-curator: an LLM over a list of prompts with both limits as backend parameters, as its page shows it.

Its own defaults would drop an answer that was cut off at `max_tokens`, which is what most of these are.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.peers.clients.common import Job, play

RETRIES = 10_000


async def run(job: Job) -> None:
    """Prompt once for all; it keeps its responses in files, and gives them back together."""
    os.environ["CURATOR_DISABLE_RICH_DISPLAY"] = "1"
    curator: Any = import_module("bespokelabs.curator")
    body = job.bodies[0]
    llm = curator.LLM(
        model_name=body["model"],
        backend="openai",
        generation_params={"max_tokens": body.get("max_tokens", 256)},
        backend_params={
            "base_url": job.base_url,
            "api_key": "sk-bench",
            "max_requests_per_minute": job.rpm,
            "max_tokens_per_minute": job.tpm,
            "max_retries": RETRIES,
            "require_all_responses": False,
            "invalid_finish_reasons": ["content_filter"],
        },
    )
    prompts = [each["messages"][0]["content"] for each in job.bodies]
    with tempfile.TemporaryDirectory() as folder:
        answers = await asyncio.to_thread(llm, prompts, working_dir=folder)
    rows = len(answers.dataset)
    for _ in range(rows):
        job.done()
    for _ in range(len(prompts) - rows):
        job.failed("no answer")


if __name__ == "__main__":
    os.environ["TELEMETRY_ENABLED"] = "false"  # it would tell its makers
    # Its tokenizer would load its vocabulary from elsewhere; litellm, which it stands on, has it among its files.
    if spec := find_spec("litellm"):
        os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(spec.origin or "").parent / "litellm_core_utils" / "tokenizers")
    play(run, "bespokelabs.curator")
