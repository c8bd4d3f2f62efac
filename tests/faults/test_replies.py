"""Replies that break off at every byte, and one that unpacks to ten gigabytes: bounded in time and memory."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from typing import Any

import pytest
from wire_rig import Raw, ask, reply, served, then_reset

from ratelimit.errors import NotAnswered, RequestFailed
from ratelimit.wire.retry import Policy
from ratelimit.wire.transport import Bounds

ONCE = Policy(attempts=1, outlasts=False)
BOUNDS = Bounds(connect=5, first_byte=20, between_bytes=10, reply=60, body=1_000_000)
SHORT = {"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_reply_that_is_reset_at_any_byte_is_no_answer_and_may_have_been_billed(*, chunked: bool) -> None:
    """Each time the request fails at once, and in the same words."""
    raw = reply(SHORT)
    if chunked:
        head, _, body = raw.partition(b"\r\n\r\n")
        rows = [row for row in head.split(b"\r\n") if not row.startswith(b"Content-Length")]
        raw = b"\r\n".join([*rows, b"Transfer-Encoding: chunked", b"", b"%x" % len(body), body, b"0", b"", b""])
    said, loop = set[str](), asyncio.get_running_loop()
    async with served(*(then_reset(raw[:kept]) for kept in range(len(raw))), raw, policy=ONCE, bounds=BOUNDS) as (
        server,
        client,
    ):
        for _ in range(len(raw)):
            with pytest.raises(NotAnswered) as caught:
                await client.send(ask())
            said.add(str(caught.value))
            client.sender._outage.answered(loop.time())  # else it would be probed, ever less often
        assert loop.time() <= 0.02 * len(raw) + 0.1
        assert (await client.send(ask())).text == "hi"
        assert len(server.requests) == len(raw) + 1
        assert client.sender.gate.scheduler.snapshot()[0].in_flight == 0
        assert client.count.retried == 0
    remedy = "If this persists, look at the network, the base URL and the time-outs"
    before, after = "the exchange with 127.0.0.1 broke off: ", f"; it may have been billed. {remedy}"
    assert [text for text in said if not (text.startswith(before) and text.endswith(after))] == []


async def test_of_a_bomb_of_ten_gigabytes_no_more_is_unpacked_than_a_reply_may_have() -> None:
    member, written = gzip.compress(bytes(10_000_000), mtime=0), 0

    async def bomb(_server: Raw, writer: Any) -> bool:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n")
        for _ in range(1_000):  # members of ten megabytes each
            writer.write(member)
            written += 1
            await writer.drain()
            await asyncio.sleep(0.001)
        return False

    async with served(bomb, policy=ONCE, bounds=BOUNDS) as (_, client):
        tracemalloc.start()
        try:
            with pytest.raises(RequestFailed) as caught:
                await client.send(ask())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert str(caught.value) == (
        "the service answered 200 reply_too_large: the reply is larger than 1,000,000 bytes; "
        "raise max_body_bytes if that is expected"
    )
    assert written < 100
    assert peak < 20_000_000
