"""What the mock answers: shapes, lengths, thinking, schemas, the same again for the same seed."""

from __future__ import annotations

import base64
import json
import struct

import aiohttp
import pytest
from mock_http import (
    CHAT,
    CHAT_SHAPE,
    HI,
    MODELS,
    RESPONSE_SHAPE,
    fits,
    post,
)

from ratelimit.testing.mock import MockServer


async def test_chat_has_the_shape_of_the_service_and_its_headers(http: aiohttp.ClientSession) -> None:
    async with (
        MockServer(tier="tier-1", models=["gpt-4o-mini"], epoch=1_700_000_000) as mock,
        http.post(mock.base_url + CHAT, json=HI) as reply,
    ):
        body = await reply.json()
        assert reply.status == 200
        assert {name.lower(): value for name, value in reply.headers.items()} == {
            "openai-organization": "org-mock",
            "openai-project": "proj_mock",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "8.64s",
            "x-ratelimit-limit-tokens": "200000",
            "x-ratelimit-remaining-tokens": "199997",
            "x-ratelimit-reset-tokens": "0s",
            "openai-processing-ms": "0",
            "x-request-id": "req_" + "0" * 31 + "1",
            "content-type": "application/json",
            "content-length": str(len(await reply.read())),
        }
    fits(body, CHAT_SHAPE)
    assert body["model"] == "gpt-4o-mini-2024-07-18"
    assert body["created"] == 1_700_000_000
    assert body["id"].startswith("chatcmpl-")
    assert len(body["id"]) == len("chatcmpl-") + 29
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["total_tokens"]) == (7, 7 + usage["completion_tokens"])
    assert usage["completion_tokens"] * 4 == len(body["choices"][0]["message"]["content"])


async def test_several_choices_are_different_and_all_billed(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        _, body = await post(http, mock, CHAT, {**HI, "n": 3})
    fits(body, CHAT_SHAPE)
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert len(set(texts)) == 3
    assert body["usage"]["completion_tokens"] == sum(len(text) for text in texts) // 4


async def test_the_same_seed_gives_the_same_answers_in_any_order(http: aiohttp.ClientSession) -> None:
    asked = [{**HI, "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(4)]
    said = []
    for order, seed in ((asked, 0), (asked[::-1], 0), (asked, 1)):
        async with MockServer(models=MODELS, seed=seed) as mock:
            answers = [(await post(http, mock, CHAT, body))[1]["choices"] for body in order]
            said.append(answers if order is asked else answers[::-1])
    assert said[0] == said[1] != said[2]


async def test_a_cap_that_bites_ends_the_answer_with_length(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS, output_tokens=50) as mock:
        for cap in ("max_tokens", "max_completion_tokens"):
            _, body = await post(http, mock, CHAT, {**HI, cap: 10})
            assert body["usage"]["completion_tokens"] == 10
            assert body["choices"][0]["finish_reason"] == "length"
            assert len(body["choices"][0]["message"]["content"]) == 40
        _, body = await post(http, mock, CHAT, {**HI, "max_tokens": 50})
        assert body["choices"][0]["finish_reason"] == "stop"
        _, body = await post(http, mock, "/responses", {"model": "gpt-4o-mini", "input": "hi", "max_output_tokens": 20})
    fits(body, RESPONSE_SHAPE)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["usage"]["output_tokens"] == 20


async def test_reasoning_models_think_within_the_cap_and_may_say_nothing(http: aiohttp.ClientSession) -> None:
    ask = {**HI, "model": "o4-mini"}
    async with MockServer(models=["o4-mini"], output_tokens=30, reasoning_tokens=100) as mock:
        _, body = await post(http, mock, CHAT, ask)
        assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 100
        assert body["usage"]["completion_tokens"] == 130
        _, body = await post(http, mock, CHAT, {**ask, "max_completion_tokens": 60})
        assert body["choices"][0]["message"]["content"] == ""
        assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 60
        _, body = await post(http, mock, "/responses", {"model": "o4-mini", "input": "hi"})
        assert [item["type"] for item in body["output"]] == ["reasoning", "message"]
        _, body = await post(http, mock, "/responses", {"model": "o4-mini", "input": "hi", "max_output_tokens": 60})
        assert [item["type"] for item in body["output"]] == ["reasoning"]


async def test_echo_repeats_the_last_text_of_the_question(http: aiohttp.ClientSession) -> None:
    parts = [
        {"type": "text", "text": 'täglich "grüßt"'},
        {"type": "image_url", "image_url": {"url": "https://a.example/x"}},
    ]
    async with MockServer(models=MODELS, echo=True) as mock:
        _, body = await post(http, mock, CHAT, {**HI, "messages": [{"role": "user", "content": parts}]})
        assert body["choices"][0]["message"]["content"] == 'täglich "grüßt"'
        listed = [{"role": "user", "content": [{"type": "input_text", "text": "again"}]}]
        _, body = await post(http, mock, "/responses", {"model": "gpt-4o-mini", "input": listed})
        assert body["output"][0]["content"][0]["text"] == "again"
        _, body = await post(http, mock, "/completions", {"model": "gpt-4o-mini", "prompt": "once more"})
        assert body["choices"][0]["text"] == "once more"


async def test_answers_conform_to_a_simple_json_schema(http: aiohttp.ClientSession) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "age": {"type": "integer", "minimum": 10, "maximum": 20, "multipleOf": 5},
            "mood": {"enum": ["good", "bad"]},
            "fixed": {"const": 7},
            "likes": {"type": "array", "items": {"$ref": "#/$defs/like"}, "minItems": 2},
            "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "nothing": {"type": "null"},
        },
        "required": ["name"],
        "$defs": {"like": {"type": ["object"], "properties": {"what": {"type": "string"}}}},
    }
    shape = {
        "name": str,
        "age": (10, 15, 20),
        "mood": ("good", "bad"),
        "fixed": 7,
        "likes": [{"what": str}],
        "maybe": bool,
        "nothing": None,
    }
    async with MockServer(models=MODELS) as mock:
        form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
        _, body = await post(http, mock, CHAT, {**HI, "response_format": form})
        found = json.loads(body["choices"][0]["message"]["content"])
        fits(found, shape)
        assert len(found["name"]) <= 5
        assert len(found["likes"]) == 2
        text = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
        _, body = await post(http, mock, "/responses", {"model": "gpt-4o-mini", "input": "hi", "text": text})
        fits(json.loads(body["output"][0]["content"][0]["text"]), shape)
        assert body["text"]["format"]["type"] == "json_schema"
        _, body = await post(http, mock, CHAT, {**HI, "response_format": {"type": "json_object"}})
        assert json.loads(body["choices"][0]["message"]["content"]) == {}


async def test_a_schema_that_contains_itself_comes_to_an_end(http: aiohttp.ClientSession) -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}, "all": {"type": "array", "items": {"$ref": "#"}}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with MockServer(models=MODELS) as mock:
        status, _ = await post(http, mock, CHAT, {**HI, "response_format": form})
    assert status == 200


async def test_embeddings_are_unit_vectors_in_numbers_or_base64(http: aiohttp.ClientSession) -> None:
    ask = {"model": "text-embedding-3-small", "input": ["a", "b", "a"]}
    async with MockServer(models=MODELS) as mock:
        _, plain = await post(http, mock, "/embeddings", ask)
        _, packed = await post(http, mock, "/embeddings", {**ask, "encoding_format": "base64"})
        _, short = await post(http, mock, "/embeddings", {**ask, "dimensions": 8, "input": [[1, 2], [3]]})
    item = {"object": "embedding", "index": int, "embedding": [float]}
    usage = {"prompt_tokens": int, "total_tokens": int}
    fits(plain, {"object": "list", "data": [item], "model": "text-embedding-3-small", "usage": usage})
    vectors = [each["embedding"] for each in plain["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1)
    assert len(vectors[0]) == 1536
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack("<1536f", raw)) == vectors[0]
    assert [len(each["embedding"]) for each in short["data"]] == [8, 8]


async def test_models_and_moderations_have_the_shape_of_the_service(http: aiohttp.ClientSession) -> None:
    async with MockServer(models=MODELS) as mock:
        async with http.get(mock.base_url + "/models") as reply:
            listed = await reply.json()
        async with http.get(mock.base_url + "/models/gpt-4o-mini") as reply:
            one = await reply.json()
        async with http.get(mock.base_url + "/models/other") as reply:
            assert reply.status == 404
        status, body = await post(http, mock, "/moderations", {"input": ["kind words", "violence"]})
    fits(listed, {"object": "list", "data": [{"id": str, "object": "model", "created": int, "owned_by": str}]})
    assert [each["id"] for each in listed["data"]] == list(MODELS)
    assert one == listed["data"][0]
    assert status == 200
    result = {
        "flagged": bool,
        "categories": dict,
        "category_scores": dict,
        "category_applied_input_types": dict,
    }
    fits(body, {"id": str, "model": "omni-moderation-latest", "results": [result]})
    assert [each["flagged"] for each in body["results"]] == [False, True]
