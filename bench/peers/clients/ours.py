"""This package: one call, default settings but the tier's limits."""

from __future__ import annotations

from bench.peers.clients.common import Job, play


async def run(job: Job) -> None:
    """Send all through `client.map`."""
    import ratelimit  # noqa: PLC0415 - only in its own environment

    client = ratelimit.open(base_url=job.base_url, api_key="sk-bench", tier="tier-2", rpm=job.rpm, tpm=job.tpm)
    async with client:
        async for result in client.map(job.bodies):
            if result.error is None:
                job.done()
            else:
                job.failed(result.error)


if __name__ == "__main__":
    play(run, "ratelimit.compose", "ratelimit.limits.tables", "pydantic_settings")
