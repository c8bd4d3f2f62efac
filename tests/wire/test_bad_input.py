"""What the service could not understand, or the tier does not allow, is refused before anything is sent."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_rig import ask, make

from ratelimit.errors import ModelNotInTier, NeverFits, RateLimitError, RequestInvalid, UnknownModel
from ratelimit.testing.mock import MockServer
from ratelimit.wire.messages import Reply, parse, request

NO_MODEL = 'the body names no model; add "model": "gpt-4o-mini" or another model\'s name'
TOO_DEEP = "the body is nested too deeply; no request needs more than a few levels"

PLAIN = "use plain dicts, lists and values"
UNKNOWN = (
    'no table has limits for the model "gpt-4o-minni"; did you mean gpt-4o-mini or gpt-5.4-mini or gpt-4.1-mini? If '
    "not, give its limits in ratelimit.toml under [models.gpt-4o-minni.tiers.tier-1], such as rpm = 500"
)
TOO_MUCH = (
    "the request asks for up to 50,000 tokens of output, but gpt-4o-mini writes at most 16,384; lower "
    "max_completion_tokens (max_output_tokens, max_tokens) to 16,384 or leave it out"
)
TOO_LARGE = (
    "this request needs 42,502 of TPM, which allows at most 30,000 at once; lower max_tokens, split the prompt, or "
    "choose a higher tier"
)
NOT_FREE = (
    "nobody has said what free allows for o3; the lowest tier with figures is tier-1: choose it, or give this tier's "
    "limits in ratelimit.toml under [models.o3.tiers.free]"
)


def nested(depth: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for _ in range(depth):
        body = {"x": body, "n": None}
    return body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, NO_MODEL),
        (b"{}", NO_MODEL),
        ({"model": None}, NO_MODEL),
        ({"model": ""}, 'the model is \'\'; add "model": "gpt-4o-mini" or another model\'s name'),
        ({"model": 4}, 'the model is 4; add "model": "gpt-4o-mini" or another model\'s name'),
        ({"model": ["m" * 200]}, f'the model is [\'{"m" * 78}; add "model": "gpt-4o-mini" or another model\'s name'),
        (b"[]", "the body is a list; a request is a JSON object with a model"),
        (b"null", "the body is a null; a request is a JSON object with a model"),
        (b"true", "the body is a boolean; a request is a JSON object with a model"),
        (b"17", "the body is a number; a request is a JSON object with a model"),
        ('"text"', "the body is a string; a request is a JSON object with a model"),
        (17, "the body is of type int; give a dict, or JSON as bytes or text"),
        (None, "the body is of type NoneType; give a dict, or JSON as bytes or text"),
        (b"", "the body is not JSON: Input data was truncated; a request is one JSON object"),
        (b"{", "the body is not JSON: Input data was truncated; a request is one JSON object"),
        (
            b'{"model": NaN}',
            "the body is not JSON: JSON is malformed: invalid character (byte 10); a request is one JSON object",
        ),
        (
            b'{"model": "m"} {}',
            "the body is not JSON: JSON is malformed: trailing characters (byte 16); a request is one JSON object",
        ),
        (b'{"model": "\xff"}', "the body is not UTF-8 at byte 11; save it as UTF-8"),
        ("\ud800", "the body cannot be written as UTF-8 at character 0; leave out half surrogate pairs"),
        (b'{"a":' * 100_000, TOO_DEEP),
        (nested(100_000), TOO_DEEP),
        (
            ask(temperature=float("nan")),
            "body['temperature'] is not a finite number; JSON has no NaN or Infinity; leave it out",
        ),
        (
            ask(logit_bias={"a": [0, {"b": float("inf")}]}, n=None),
            "body['logit_bias']['a'][1]['b'] is not a finite number; JSON has no NaN or Infinity; leave it out",
        ),
        (
            ask(tools={object}),
            "the body cannot be written as JSON: Encoding objects of type type is unsupported; " + PLAIN,
        ),
        (ask(stream=True), 'the body asks for a stream; use client.stream(), or leave "stream" out'),
        (ask(stream="yes"), 'the body asks for a stream; use client.stream(), or leave "stream" out'),
    ],
)
async def test_refused_before_it_is_sent(body: Any, message: str) -> None:
    async with MockServer() as mock, make(mock.base_url, limits="tier-1") as client:
        with pytest.raises(RequestInvalid) as caught:
            await client.send(body)
        (result,) = [result async for result in client.map([body])]
        with pytest.raises(RequestInvalid):
            result.unwrap()
        assert mock.stats.arrived == 0
    assert str(caught.value) == str(result.error) == message


@pytest.mark.parametrize("stream", [None, False, 1, "true"])
async def test_a_stream_is_asked_for_in_so_many_words(stream: object) -> None:
    async with MockServer() as mock, make(mock.base_url) as client:
        with pytest.raises(RequestInvalid) as caught:
            async with client.stream(ask(stream=stream)):
                pass
        assert str(caught.value) == 'the body asks for no stream; add "stream": true, or use client.send()'
        assert mock.stats.arrived == 0


async def test_a_path_begins_with_a_slash() -> None:
    async with MockServer() as mock, make(mock.base_url) as client:
        with pytest.raises(RequestInvalid) as caught:
            await client.send(ask(), "@evil.example/v1")
        assert str(caught.value) == (
            "the path is '@evil.example/v1'; a path begins with a slash, as in /v1/chat/completions"
        )
        assert mock.stats.arrived == 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (
            ask(model="gpt-4o-minni"),
            UnknownModel,
            UNKNOWN,
        ),
        (
            ask(max_tokens=50_000),
            RateLimitError,
            TOO_MUCH,
        ),
        (
            ask("x" * 170_000, model="gpt-4o"),
            NeverFits,
            TOO_LARGE,
        ),
    ],
)
async def test_refused_by_the_table(body: dict[str, Any], kind: type[RateLimitError], message: str) -> None:
    async with MockServer() as mock, make(mock.base_url, limits="tier-1") as client:
        with pytest.raises(kind) as caught:
            await client.send(body)
        assert (str(caught.value), mock.stats.arrived) == (message, 0)
        assert client.count.attempts == 0


async def test_a_model_the_tier_cannot_use() -> None:
    async with MockServer() as mock, make(mock.base_url, limits="free") as client:
        with pytest.raises(ModelNotInTier) as caught:
            await client.send(ask(model="o3"))
        assert str(caught.value) == NOT_FREE
        assert mock.stats.arrived == 0


def test_the_bytes_of_a_mapping_are_its_json() -> None:
    assert request({"model": "m", "x": [1, 2.5, None]}).body == b'{"model":"m","x":[1,2.5,null]}'
    assert request(MappingProxyType({"model": "m"})).body == b'{"model":"m"}'
    deep = request({"model": "m", "x": nested(300)})
    assert json.loads(deep.body)["model"] == "m"


KEYS = st.text(max_size=5) | st.integers()
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inside, max_size=3)
    ),
    max_leaves=8,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60),
    JSON,
    st.dictionaries(st.sampled_from(["model", "messages", "stream"]), JSON),
    JSON.map(lambda value: json.dumps(value, default=str).encode()),
    st.dictionaries(st.just("model"), st.text(min_size=1), min_size=1).map(json.dumps),
)


@given(BODIES)
@settings(max_examples=400, deadline=None)
def test_nothing_but_request_invalid_is_raised(body: Any) -> None:
    try:
        asked = request(body)
    except RequestInvalid as error:
        assert "; " in str(error)  # noqa: PT017 - either is right; what is raised says what to do
    else:
        assert asked.model
        assert msgspec.json.decode(asked.body)["model"] == asked.model


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_json_raise_request_invalid(raw: bytes) -> None:
    try:
        parse(raw)
    except RequestInvalid as error:
        assert "; " in str(error)  # noqa: PT017 - as above


@given(st.integers(100, 599), BODIES)
@settings(max_examples=200, deadline=None)
def test_no_reply_is_too_odd_to_be_read(status: int, body: Any) -> None:
    raw = body if isinstance(body, bytes) else repr(body).encode("utf-8", "replace")
    answer = Reply(status, {}, raw)
    if answer.envelope() is not None:
        assert isinstance(answer.text, str)
