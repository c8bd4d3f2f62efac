"""Shared limits without a server: one named actor of the Ray cluster keeps what all workers lease from.

It outlives the job that started it, so that the next one knows what has been spent, and two jobs in one cluster share
one key's limits. When it is started anew it knows nothing, which the ledgers bear as from any store. Programs outside
the cluster do not see it: where there are such, share by Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import ray  # type: ignore[import-not-found]  # an extra, which the tests of this package alone are run with

from ratelimit.admission.shared.memory import MemoryStore
from ratelimit.admission.shared.store import Answer, Ask, LaneSeen, StoreAway

NAME = "ratelimit"
"""What the actor is called, and its namespace: `ray.kill(ray.get_actor("ratelimit", "ratelimit"))` removes it."""

_encode = msgspec.msgpack.Encoder().encode
_ask = msgspec.msgpack.Decoder(Ask)
_answer = msgspec.msgpack.Decoder(Answer)
_lanes = msgspec.msgpack.Decoder(list[LaneSeen])


class Keeper:
    """The actor: a store in memory, asked from elsewhere."""

    def __init__(self, clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000) -> None:
        self._store = MemoryStore(clock)

    async def lease(self, group: str, ask: bytes) -> bytes:
        """Take a program's word and give it a lease."""
        return _encode(await self._store.lease(group, _ask.decode(ask)))

    async def peek(self) -> bytes:
        """Return every lane that is in use."""
        return _encode(await self._store.peek())


class RayStore:
    """The actor as a store; started by whoever needs it first, unless another is given."""

    def __init__(self, keeper: Any = None) -> None:
        options = {"name": NAME, "namespace": NAME, "lifetime": "detached", "get_if_exists": True}
        self._keeper = keeper or ray.remote(Keeper).options(num_cpus=0, max_restarts=-1, **options).remote()

    async def check(self) -> None:
        """Wait until it is there."""
        await self._keeper.__ray_ready__.remote()

    async def lease(self, group: str, ask: Ask) -> Answer:
        """Take a program's word and give it a lease."""
        return _answer.decode(await self._answered(self._keeper.lease.remote(group, _encode(ask))))

    async def peek(self) -> list[LaneSeen]:
        """Return every lane that is in use."""
        return _lanes.decode(await self._answered(self._keeper.peek.remote()))

    async def aclose(self) -> None:
        """Do nothing: the actor is everybody's."""

    async def _answered(self, answer: Any) -> bytes:
        try:
            told: bytes = await answer
        except ray.exceptions.RayError as error:
            raise StoreAway(f"the actor {NAME} does not answer ({type(error).__name__})") from None
        return told
