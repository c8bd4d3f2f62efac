"""Every way of calling the SDK works as it does without limits, and what has limits is counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from ratelimit.openai import rate_limited
from ratelimit.testing.mock import MockServer
from sdk.conftest import HELLO, MODEL, lane_of, limiter_of, sender_of


async def test_a_chat_completion_is_the_typed_object_it_always_was(client: Any) -> None:
    reply = await client.chat.completions.create(**HELLO)
    assert type(reply).__name__ == "ChatCompletion"
    assert reply.choices[0].message.content
    assert sender_of(client).count.succeeded == 1
    assert sender_of(client).count.output_tokens == reply.usage.completion_tokens
    assert lane_of(client).in_flight == 0


async def test_a_response_is_the_typed_object_it_always_was(client: Any) -> None:
    reply = await client.responses.create(model=MODEL, input="Hello")
    assert type(reply).__name__ == "Response"
    assert reply.output_text
    assert sender_of(client).count.output_tokens == reply.usage.output_tokens


async def test_embeddings_are_decoded_as_always(client: Any) -> None:
    reply = await client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert [type(row.embedding[0]) for row in reply.data] == [float, float]
    assert sender_of(client).count.input_tokens == reply.usage.prompt_tokens


async def test_moderations_are_limited_where_their_limits_are_known(client: Any) -> None:
    reply = await client.moderations.create(model="omni-moderation", input="Hello")
    assert reply.results[0].flagged is False
    assert sender_of(client).count.succeeded == 1


async def test_a_structured_output_is_parsed(client: Any) -> None:
    class Answer(BaseModel):
        text: str
        sure: bool

    reply = await client.chat.completions.parse(**HELLO, response_format=Answer)
    assert isinstance(reply.choices[0].message.parsed, Answer)


async def test_a_raw_response_has_headers_and_says_how_long_it_took(client: Any) -> None:
    raw = await client.chat.completions.with_raw_response.create(**HELLO)
    assert raw.headers["x-ratelimit-limit-requests"] == "60"
    assert raw.http_response.elapsed.total_seconds() >= 0
    assert raw.parse().choices[0].message.content == json.loads(raw.text)["choices"][0]["message"]["content"]


async def test_a_streaming_response_gives_the_body_in_pieces(client: Any) -> None:
    async with client.chat.completions.with_streaming_response.create(**HELLO) as reply:
        body = b"".join([piece async for piece in reply.iter_bytes()])
    assert json.loads(body)["object"] == "chat.completion"
    assert lane_of(client).in_flight == 0


async def test_options_make_another_client_in_the_same_lines(client: Any) -> None:
    other = client.with_options(timeout=3, default_headers={"x-mine": "1"})
    await other.chat.completions.create(**HELLO)
    assert type(other) is type(client)
    assert other.timeout == 3
    assert limiter_of(other) is limiter_of(client)
    assert sender_of(client).count.succeeded == 1


async def test_what_has_no_limits_passes_untouched(client: Any, mock: MockServer) -> None:
    file = await client.files.create(file=("in.jsonl", _line()), purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert (await client.batches.retrieve(batch.id)).id == batch.id
    assert (await client.files.content(file.id)).content == _line()
    assert (await client.models.list()).data
    assert limiter_of(client)._desks == {}


async def test_a_body_without_a_model_is_the_services_to_refuse(openai: Any, client: Any, mock: MockServer) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.post("/chat/completions", body={"messages": []}, cast_to=object)
    assert mock.stats.arrived == 1
    assert limiter_of(client)._desks == {}


async def test_many_at_once_keep_to_the_limit_and_are_all_answered(client: Any, mock: MockServer) -> None:
    loop = asyncio.get_running_loop()
    replies = await asyncio.gather(*(client.chat.completions.create(**HELLO) for _ in range(180)))
    assert len({reply.id for reply in replies}) == 180
    assert mock.stats.refused.total() == 0
    assert mock.stats.arrived == 180
    assert int(loop.time()) == 120  # a full bucket at once, then one a second


async def test_the_client_that_was_given_is_as_it_was(bare: Any, openai: Any, mock: MockServer) -> None:
    transport, retries = bare._client._transport, bare.max_retries
    client = rate_limited(bare, tier="tier-1")
    assert type(client) is type(bare) is openai.AsyncOpenAI
    assert (bare._client._transport, bare.max_retries, client.max_retries) == (transport, retries, 0)
    assert (client.base_url, client.api_key, client.timeout) == (bare.base_url, bare.api_key, bare.timeout)
    await bare.chat.completions.create(**HELLO)
    assert mock.stats.arrived == 1
    assert limiter_of(client)._desks == {}


def _line() -> bytes:
    body = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": HELLO}
    return json.dumps(body).encode() + b"\n"
