"""The algorithm of the vendor's cookbook script for parallel requests, written anew.

One loop that looks every millisecond: two levels that refill continuously up to the limit, a request taken from the
retry queue or the file as soon as both levels allow it, the prompt's tokens and the whole output cap as its price, five
attempts, and fifteen seconds of silence after anybody's refusal.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from bench.peers.clients.common import Job, play, tokens

ATTEMPTS = 5
SILENCE = 15.0
LOOK = 0.001


@dataclass
class Task:
    """A request and the attempts it has left."""

    body: dict[str, Any]
    price: int
    left: int = ATTEMPTS


class State:
    """What the loop and the calls share."""

    def __init__(self) -> None:
        self.retries: deque[Task] = deque()
        self.running = 0
        self.refused_at = float("-inf")


async def run(job: Job) -> None:
    """Dispatch until nothing is left."""
    aiohttp: Any = import_module("aiohttp")
    state, files = State(), iter(job.bodies)
    requests, counted, looked = float(job.rpm), float(job.tpm), time.monotonic()
    waiting, finished, calls = None, False, set[asyncio.Task[None]]()
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk-bench"}) as session:
        while True:
            if waiting is None:
                if state.retries:
                    waiting = state.retries.popleft()
                elif not finished:
                    body = next(files, None)
                    if body is None:
                        finished = True
                    else:
                        waiting = Task(body, tokens(body) + body.get("max_tokens", 15))
            now = time.monotonic()
            requests = min(requests + job.rpm * (now - looked) / 60, job.rpm)
            counted = min(counted + job.tpm * (now - looked) / 60, job.tpm)
            looked = now
            if waiting and requests >= 1 and counted >= waiting.price:
                requests, counted = requests - 1, counted - waiting.price
                waiting.left -= 1
                state.running += 1
                call = asyncio.create_task(send(session, job, waiting, state))
                calls.add(call)
                call.add_done_callback(calls.discard)
                waiting = None
            if waiting is None and finished and not state.running and not state.retries:
                return
            await asyncio.sleep(LOOK)
            silent = time.monotonic() - state.refused_at
            if silent < SILENCE:
                await asyncio.sleep(SILENCE - silent)


async def send(session: Any, job: Job, task: Task, state: State) -> None:
    """Make one attempt."""
    error: object = None
    try:
        async with session.post(f"{job.base_url}/chat/completions", json=task.body) as reply:
            said = await reply.json()
        if "error" in said:
            error = said["error"].get("code") or "error"
            if "rate limit" in said["error"].get("message", "").lower():
                state.refused_at = time.monotonic()
    except Exception as failure:  # noqa: BLE001 - as the script does: whatever goes wrong is tried again
        error = failure
    state.running -= 1
    if error is None:
        job.done()
    elif task.left:
        state.retries.append(task)
    else:
        job.failed(error)


if __name__ == "__main__":
    play(run, "aiohttp")
