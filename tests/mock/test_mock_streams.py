"""Streamed answers: the events of the service, in its order, `[DONE]` where it sends it and not where it does not."""

from __future__ import annotations

import aiohttp
from mock_http import (
    CHAT,
    CHUNK_SHAPE,
    HI,
    MODELS,
    RESPONSE_SHAPE,
    USAGE,
    events,
    fits,
    post,
)

from ratelimit.testing.mock import MockServer


async def test_a_chat_stream_is_chunks_usage_and_done(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        _, whole = await post(http, mock, CHAT, HI)
        plain = await events(http, mock, CHAT, HI)
        told = await events(
            http, mock, CHAT, {**HI, "stream_options": {"include_usage": True, "include_obfuscation": False}}
        )
    assert plain[-1] == (None, "[DONE]")
    assert all(name is None for name, _ in plain)
    chunks = [data for _, data in plain[:-1]]
    for chunk in chunks:
        fits(chunk, {**CHUNK_SHAPE, "obfuscation": str})
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert (chunks[-1]["choices"][0]["delta"], chunks[-1]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert len({chunk["id"] for chunk in chunks}) == 1
    *told_chunks, last = [data for _, data in told[:-1]]
    for chunk in told_chunks:
        fits(chunk, {**CHUNK_SHAPE, "usage": None})
    fits(last, {**CHUNK_SHAPE, "choices": [int], "usage": USAGE})
    assert last["choices"] == []
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in told_chunks)
    assert text != whole["choices"][0]["message"]["content"]  # other bytes were sent, so another answer comes
    assert len(text) == 4 * last["usage"]["completion_tokens"]


async def test_a_legacy_completion_streams_and_answers_each_prompt(http: aiohttp.ClientSession) -> None:
    ask = {"model": "gpt-4o-mini", "prompt": ["one", "two"]}
    async with MockServer(models=MODELS, echo=True) as mock:
        _, body = await post(http, mock, "/completions", ask)
        streamed = await events(http, mock, "/completions", ask)
    choice = {"text": str, "index": int, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int}
    fits(
        body,
        {"id": str, "object": "text_completion", "created": int, "model": str, "choices": [choice], "usage": usage},
    )
    assert [each["index"] for each in body["choices"]] == [0, 1]
    assert streamed[-1] == (None, "[DONE]")
    assert [data["choices"][0]["finish_reason"] for _, data in streamed[:-1]] == [None, "stop"] * 2


async def test_a_response_and_its_stream_have_the_shape_of_the_service_without_done(
    http: aiohttp.ClientSession,
) -> None:
    ask = {"model": "gpt-4o-mini", "input": "hi", "instructions": "be brief", "metadata": {"a": "b"}}
    async with MockServer(models=MODELS) as mock:
        _, body = await post(http, mock, "/responses", ask)
        streamed = await events(http, mock, "/responses", ask)
    fits(body, RESPONSE_SHAPE)
    assert (body["instructions"], body["metadata"]) == ("be brief", {"a": "b"})
    names = [name for name, _ in streamed]
    deltas = names.count("response.output_text.delta")
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [data["type"] for _, data in streamed] == names
    assert [data["sequence_number"] for _, data in streamed] == list(range(len(names)))
    final = streamed[-1][1]["response"]
    fits(final, RESPONSE_SHAPE)
    text = "".join(data["delta"] for name, data in streamed if name == "response.output_text.delta")
    assert final["output"][0]["content"][0]["text"] == text
    assert final["usage"]["output_tokens"] == deltas == len(text) // 4
