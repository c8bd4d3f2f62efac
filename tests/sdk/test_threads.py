"""Synchronous clients: the same lines, waited in by threads. In real time, since threads know no other."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ratelimit.admission.blocking import Background
from ratelimit.openai import rate_limited
from ratelimit.testing.mock import MockServer
from sdk.conftest import HELLO, MODEL, limiter_of, sender_of, table

Served = tuple[MockServer, Background]


def in_flight(client: Any) -> int:
    """Requests in flight, once the client's loop has done all it was told to."""
    limiter = limiter_of(client)

    async def count() -> int:
        for _ in range(10):  # a cancellation takes a few rounds to arrive
            await asyncio.sleep(0)
        (status,) = sender_of(client).gate.scheduler.snapshot()
        return status.in_flight + status.waiting

    assert limiter._loop is not None
    return asyncio.run_coroutine_threadsafe(count(), limiter._loop).result(5)


def test_calls_of_all_kinds_work(openai: Any, blocking: Any, served: Served) -> None:
    assert type(blocking) is openai.OpenAI
    assert blocking.chat.completions.create(**HELLO).choices
    assert blocking.responses.create(model=MODEL, input="Hello").output_text
    assert blocking.embeddings.create(model="text-embedding-3-small", input="one").data[0].embedding
    raw = blocking.chat.completions.with_raw_response.create(**HELLO)
    assert raw.headers["x-ratelimit-limit-requests"] == "6000"
    with blocking.chat.completions.with_streaming_response.create(**HELLO) as reply:
        assert reply.read()
    assert blocking.models.list().data
    assert blocking.files.create(file=("in.jsonl", b"{}\n"), purpose="batch").id


def test_streams_end_their_turns(blocking: Any) -> None:
    assert list(blocking.chat.completions.create(**HELLO, stream=True))
    with blocking.chat.completions.create(**HELLO, stream=True) as stream:
        next(iter(stream))
    events = list(blocking.responses.create(model=MODEL, input="Hello", stream=True))
    assert events[-1].type == "response.completed"
    assert in_flight(blocking) == 0


def test_twenty_threads_at_once(blocking: Any, served: Served) -> None:
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: blocking.chat.completions.create(**HELLO).id, range(100)))
    assert len(set(replies)) == 100
    assert served[0].stats.refused.total() == 0
    assert in_flight(blocking) == 0


def test_errors_are_the_sdks_own(openai: Any, blocking: Any, served: Served) -> None:
    server, background = served
    with pytest.raises(openai.NotFoundError) as caught:
        blocking.chat.completions.create(**{**HELLO, "model": "gpt-none"})
    assert caught.value.response.headers["x-ratelimit-error"] == "UnknownModel"
    background.call(lambda: server.fail_next("insufficient_quota"))
    for expected in ("credits", "halted"):
        with pytest.raises(openai.RateLimitError) as caught:
            blocking.chat.completions.create(**HELLO)
        assert caught.value.code == "insufficient_quota", expected
    assert server.stats.arrived == 1
    background.call(lambda: server.fault("reset"))
    with pytest.raises(openai.APIConnectionError):
        blocking.embeddings.create(model="text-embedding-3-small", input="one")


def test_a_failure_that_passes_is_not_seen(blocking: Any, served: Served) -> None:
    server, background = served
    background.call(lambda: server.fail_next("503"))
    assert blocking.chat.completions.create(**HELLO).choices
    assert server.stats.arrived == 2


def test_an_asynchronous_client_can_share(openai: Any, blocking: Any, served: Served) -> None:
    blocking.chat.completions.create(**HELLO)

    async def both() -> None:
        async with openai.AsyncOpenAI(base_url=served[0].base_url, api_key="sk-test") as bare:
            client = rate_limited(bare, share=blocking)
            await asyncio.gather(*(client.chat.completions.create(**HELLO) for _ in range(5)))
            stream = await client.chat.completions.create(**HELLO, stream=True)
            assert [chunk async for chunk in stream]
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(**{**HELLO, "model": "gpt-none"})

    asyncio.run(both())
    assert sender_of(blocking).count.succeeded == 7
    assert in_flight(blocking) == 0


def test_a_synchronous_client_can_share(openai: Any, served: Served) -> None:
    async def both() -> None:
        async with openai.AsyncOpenAI(base_url=served[0].base_url, api_key="sk-test") as bare:
            client = rate_limited(bare, table=table(rpm=6000))
            await client.chat.completions.create(**HELLO)
            with openai.OpenAI(base_url=served[0].base_url, api_key="sk-test") as second:
                blocking = rate_limited(second, share=client)
                assert (await asyncio.to_thread(blocking.chat.completions.create, **HELLO)).choices
                # From the loop itself, which stands still meanwhile.
                assert blocking.chat.completions.create(**HELLO).choices
            await client.chat.completions.create(**HELLO)
            assert in_flight(client) == 0

    asyncio.run(both())
    assert served[0].stats.arrived == 4


def test_an_interrupt_leaves_the_line(openai: Any, served: Served) -> None:
    server, background = served
    background.call(lambda: server.set_limits(rpm=2))

    def interrupt() -> None:
        while ": 0 waiting" in repr(sender_of(client).gate.scheduler):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    with openai.OpenAI(base_url=server.base_url, api_key="sk-test") as bare:
        client = rate_limited(bare, table=table(rpm=2))
        client.chat.completions.create(**HELLO)
        watcher = threading.Thread(target=interrupt)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            client.chat.completions.create(**HELLO)
        watcher.join()
        assert in_flight(client) == 0
    assert server.stats.arrived == 1
