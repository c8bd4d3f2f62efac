"""Talking to the mock over HTTP, and the shapes of what the service answers: a table, and a checker of it."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from ratelimit.testing.mock import Limits, MockServer

Json = dict[str, Any]
WIDE = Limits(rpm=10_000, tpm=10_000_000)
MODELS = {"gpt-4o-mini": WIDE, "text-embedding-3-small": WIDE, "omni-moderation-latest": Limits()}
HI: Json = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
CHAT = "/chat/completions"


def session() -> aiohttp.ClientSession:
    """A client with a key that any mock takes."""
    return aiohttp.ClientSession(headers={"Authorization": "Bearer sk-test-0123456789"})


async def post(
    http: aiohttp.ClientSession, mock: MockServer, path: str, body: object, **headers: str
) -> tuple[int, Json]:
    async with http.post(mock.base_url + path, json=body, headers=headers) as reply:
        return reply.status, await reply.json()


async def events(http: aiohttp.ClientSession, mock: MockServer, path: str, body: Json) -> list[tuple[str | None, Any]]:
    """The events of a stream as (name, data)."""
    async with http.post(mock.base_url + path, json={**body, "stream": True}) as reply:
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["x-ratelimit-limit-requests"] == "10000"
        text = await reply.text()
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name = block.split("\n")[0].removeprefix("event: ") if block.startswith("event: ") else None
        data = block.split("data: ", 1)[1]
        found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found


def fits(value: object, shape: object, where: str = "$") -> None:
    """Checks a value against a shape: a type or value, a tuple of choices, a list of one shape, a dict of all keys."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        assert value.keys() == shape.keys(), where
        for key, each in shape.items():
            fits(value[key], each, f"{where}.{key}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for index, each in enumerate(value):
            fits(each, shape[0], f"{where}[{index}]")
    elif isinstance(shape, tuple):
        assert any(_suits(value, each) for each in shape), (where, value)
    else:
        assert _suits(value, shape), (where, value)


def _suits(value: object, shape: object) -> bool:
    return type(value) is shape if isinstance(shape, type) else value == shape


PROMPT_DETAILS = {"cached_tokens": int, "audio_tokens": int}
WRITTEN_DETAILS = dict.fromkeys(
    ("reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"), int
)
USAGE = {
    "prompt_tokens": int,
    "completion_tokens": int,
    "total_tokens": int,
    "prompt_tokens_details": PROMPT_DETAILS,
    "completion_tokens_details": WRITTEN_DETAILS,
}
MESSAGE = {"role": "assistant", "content": str, "refusal": None, "annotations": list}
CHAT_SHAPE = {
    "id": str,
    "object": "chat.completion",
    "created": int,
    "model": str,
    "choices": [{"index": int, "message": MESSAGE, "logprobs": None, "finish_reason": ("stop", "length")}],
    "usage": USAGE,
    "service_tier": "default",
    "system_fingerprint": str,
}
CHUNK_SHAPE = {
    "id": str,
    "object": "chat.completion.chunk",
    "created": int,
    "model": str,
    "service_tier": "default",
    "system_fingerprint": str,
    "choices": [{"index": int, "delta": dict, "logprobs": None, "finish_reason": (None, "stop", "length")}],
}
RESPONSE_USAGE = {
    "input_tokens": int,
    "input_tokens_details": {"cached_tokens": int},
    "output_tokens": int,
    "output_tokens_details": {"reasoning_tokens": int},
    "total_tokens": int,
}
PART = {"type": "output_text", "annotations": list, "logprobs": list, "text": str}
ITEM = {"id": str, "type": "message", "status": ("completed", "incomplete"), "role": "assistant", "content": [PART]}
RESPONSE_SHAPE = {
    "id": str,
    "object": "response",
    "created_at": int,
    "status": ("completed", "incomplete"),
    "background": False,
    "billing": {"payer": "developer"},
    "completed_at": (int, None),
    "error": None,
    "incomplete_details": (dict, None),
    "instructions": (str, None),
    "max_output_tokens": (int, None),
    "max_tool_calls": None,
    "model": str,
    "output": [ITEM],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": list,
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": RESPONSE_USAGE,
    "user": None,
    "metadata": dict,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
