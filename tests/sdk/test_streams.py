"""Streams pass as they come, and their turns end when they do."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from ratelimit.admission.events import Event, Settled
from ratelimit.openai import rate_limited
from ratelimit.testing.mock import MockServer
from sdk.conftest import HELLO, MODEL, lane_of, limiter_of, mock_of, sender_of, table


@pytest.fixture
def seen() -> list[Event]:
    return []


@pytest.fixture
async def client(bare: Any, seen: list[Event]) -> Any:
    return rate_limited(bare, table=table(), observer=seen.append)


def ends(seen: list[Event]) -> list[str]:
    return [event.how for event in seen if isinstance(event, Settled)]


async def test_a_chat_stream_ends_its_turn_by_its_usage(client: Any, seen: list[Event]) -> None:
    stream = await client.chat.completions.create(**HELLO, stream=True, stream_options={"include_usage": True})
    assert lane_of(client).in_flight == 1
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert lane_of(client).in_flight == 0
    assert ends(seen) == ["used"]
    assert sender_of(client).count.output_tokens == chunks[-1].usage.completion_tokens > 0


async def test_a_chat_stream_without_usage_is_used_all_the_same(client: Any, seen: list[Event]) -> None:
    stream = await client.chat.completions.create(**HELLO, stream=True)
    assert len([chunk async for chunk in stream]) > 2
    assert ends(seen) == ["used"]
    assert sender_of(client).count.succeeded == 1


async def test_a_response_stream_ends_its_turn_by_its_usage(client: Any, seen: list[Event]) -> None:
    stream = await client.responses.create(model=MODEL, input="Hello", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.completed"
    assert ends(seen) == ["used"]
    assert sender_of(client).count.output_tokens == events[-1].response.usage.output_tokens


async def test_the_stream_helper_works(client: Any, seen: list[Event]) -> None:
    async with client.chat.completions.stream(**HELLO) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.content
    assert ends(seen) == ["used"]


async def test_pieces_come_as_they_are_sent(openai: Any) -> None:
    loop = asyncio.get_running_loop()
    async with (
        mock_of(token_delay=1.0, output_tokens=5) as mock,
        openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test") as bare,
    ):
        client = rate_limited(bare, table=table())
        stream = await client.chat.completions.create(**HELLO, stream=True)
        times = [int(loop.time()) async for _ in stream]
    assert times[-1] - times[0] >= 5
    assert sorted(set(times)) == list(range(times[0], times[-1] + 1))


async def test_a_stream_that_is_closed_early_is_unknown(client: Any, seen: list[Event]) -> None:
    stream = await client.chat.completions.create(**HELLO, stream=True)
    await anext(aiter(stream))
    await stream.close()
    # The mock sends all at once, so that the first piece may have held the end: then it is known.
    assert ends(seen) in (["unknown"], ["used"])
    assert lane_of(client).in_flight == 0


async def test_a_stream_that_is_dropped_gives_its_slot_back(openai: Any, seen: list[Event]) -> None:
    async with (
        mock_of(token_delay=1.0, output_tokens=50) as mock,
        openai.AsyncOpenAI(base_url=mock.base_url, api_key="sk-test") as bare,
    ):
        client = rate_limited(bare, table=table(), observer=seen.append)
        stream = await client.chat.completions.create(**HELLO, stream=True)
        async for _ in stream:
            break
        assert lane_of(client).in_flight == 1
        del stream, _
        for _ in range(5):  # generators hold generators
            gc.collect()
            await asyncio.sleep(0.1)
        assert lane_of(client).in_flight == 0
        assert ends(seen) == ["unknown"]


@pytest.mark.parametrize("read", [0, 1])
async def test_streams_that_are_garbage_are_closed_without_a_word(client: Any, mock: MockServer, read: int) -> None:
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: said.append(about))
    for _ in range(4):
        stream = await client.chat.completions.create(**HELLO, stream=True)
        for _ in range(read):
            await anext(aiter(stream))
    del stream
    gc.collect()
    await asyncio.sleep(5)  # virtual
    gc.collect()
    await asyncio.sleep(5)
    assert said == []
    assert mock.stats.in_flight == 0


async def test_a_stream_that_breaks_off_is_unknown(
    openai: Any, http: Any, client: Any, mock: MockServer, seen: list[Event]
) -> None:
    mock.fail_next("stream_break", bytes=400)
    stream = await client.chat.completions.create(**HELLO, stream=True)
    with pytest.raises((http.ReadError, http.RemoteProtocolError, openai.APIConnectionError)):
        async for _ in stream:
            pass
    await stream.close()
    assert ends(seen) == ["unknown"]
    assert lane_of(client).in_flight == 0


async def test_a_response_that_fails_before_it_says_anything_is_asked_for_again(
    client: Any, mock: MockServer, seen: list[Event]
) -> None:
    mock.fail_next("response_failed", times=2)
    stream = await client.responses.create(model=MODEL, input="Hello", stream=True)
    assert [event.type async for event in stream][-1] == "response.completed"
    assert mock.stats.arrived == 3
    assert ends(seen) == ["refused", "refused", "used"]


async def test_a_refused_stream_raises_what_it_always_did(openai: Any, client: Any, mock: MockServer) -> None:
    mock.fail_next("insufficient_quota")
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**HELLO, stream=True)
    assert caught.value.code == "insufficient_quota"
    assert lane_of(client).in_flight == 0


async def test_a_streams_cancelled_wait_leaves_no_trace(client: Any, seen: list[Event]) -> None:
    await client.chat.completions.create(**HELLO)
    before = sender_of(client).gate.scheduler.spent()
    task = asyncio.create_task(client.chat.completions.create(**HELLO, stream=True))
    for _ in range(100):
        await asyncio.sleep(0)
        if task.done() or lane_of(client).in_flight:
            break
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lane_of(client).in_flight == 0
    assert set(before) == {MODEL}
    assert limiter_of(client)._desks
