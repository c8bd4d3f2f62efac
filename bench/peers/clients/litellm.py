"""LiteLLM's Router with the deployment's limits in the model list, and as many retries as it takes.

The router's limits choose between deployments; with one deployment they bound how many requests run at a time. Its
cool-downs, which would take the only deployment away, are off, as its documentation says for a single one.
"""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play

IN_FLIGHT = 50
RETRIES = 10_000


async def run(job: Job) -> None:
    """Send all at once; the router bounds how many run at a time."""
    litellm: Any = import_module("litellm")
    litellm.suppress_debug_info = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    logging.getLogger("LiteLLM Router").setLevel(logging.CRITICAL)
    model = job.bodies[0]["model"]
    params = {
        "model": f"openai/{model}",
        "api_base": job.base_url,
        "api_key": "sk-bench",
        "rpm": job.rpm,
        "tpm": job.tpm,
        "max_parallel_requests": IN_FLIGHT,
    }
    router = litellm.Router(
        model_list=[{"model_name": model, "litellm_params": params}],
        routing_strategy="simple-shuffle",
        num_retries=RETRIES,
        disable_cooldowns=True,
        timeout=60,
    )

    async def one(body: dict[str, Any]) -> None:
        try:
            await router.acompletion(**body)
        except Exception as error:  # noqa: BLE001 - a loser is counted, whatever lost it
            job.failed(error)
        else:
            job.done()

    await asyncio.gather(*(one(body) for body in job.bodies))


if __name__ == "__main__":
    play(run, "litellm")
