from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import RateLimitError
from ratelimit.limits import charge as charges
from ratelimit.limits.bucket import MINUTE, Limit
from ratelimit.limits.content import Endpoint, Size, endpoint_of, measure, utf8_length

PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/completions",
    "/v1/moderations",
    "/v1/images/generations",
)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/responses", "responses"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/completions", "completions"),
        ("/v1/moderations", "moderations"),
        ("/v1/responses/input_tokens", "other"),
        ("/v1/images/generations", "other"),
        ("", "other"),
        ("https://x.example/openai/deployments/d/chat/completions?api-version=2024-10-21", "chat"),
        ("/v1/chat/completions/", "chat"),
    ],
)
def test_the_path_tells_the_endpoint(path: str, endpoint: Endpoint) -> None:
    assert endpoint_of(path) == endpoint


def test_everything_a_chat_body_may_say() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    body = {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Café"},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "What is this?"}, picture]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "n": 2,
        "max_tokens": 10,
        "max_completion_tokens": 20,
        "stream": True,
    }
    assert measure(body) == Size(
        endpoint="chat",
        model="gpt-4o",
        utf8_bytes=5 + 13 + 3,
        messages=4,
        images=1,
        choices=2,
        cap=20,
        function_tools=True,
        stream=True,
        texts=("Café", "What is this?", "No."),
        pictures=(picture,),
    )


def test_everything_a_responses_body_may_say() -> None:
    picture = {"type": "input_image", "image_url": "https://x.example/a.png"}
    body = {
        "model": "gpt-5",
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Look."}, picture]},
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "data:"}},
        ],
        "tools": [{"type": "web_search"}],
        "max_output_tokens": 50,
        "n": 3,
    }
    size = measure(body, "/v1/responses")
    assert size.texts == ("Be brief.", "Look.", "f", "{}", "42")
    assert (size.messages, size.images, size.choices, size.cap) == (5, 2, 1, 50)
    assert (size.function_tools, size.unseen) == (False, False)


def test_a_text_alone_is_one_message_to_the_responses_api() -> None:
    size = measure({"input": "Hello"}, "/v1/responses")
    assert (size.messages, size.texts) == (1, ("Hello",))


@pytest.mark.parametrize("kind", ["function", "custom"])
def test_tools_that_are_rendered(kind: str) -> None:
    assert measure({"tools": [{"type": "web_search"}, {"type": kind}]}, "/v1/responses").function_tools


def test_functions_of_the_older_kind() -> None:
    assert measure({"functions": [{"name": "f"}]}).function_tools
    assert not measure({"functions": []}).function_tools


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"input": "x", "previous_response_id": "resp_1"}, "/v1/responses"),
        ({"input": "x", "conversation": "conv_1"}, "/v1/responses"),
        ({"prompt": {"id": "pmpt_1"}}, "/v1/responses"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "/v1/responses"),
        ({"input": [{"type": "reasoning", "id": "rs_1"}]}, "/v1/responses"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "/v1/chat/completions"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "/v1/chat/completions"),
    ],
)
def test_input_that_only_the_server_sees(body: dict[str, object], path: str) -> None:
    assert measure(body, path).unseen
    assert not measure({"input": "x", "messages": []}, path).unseen


@pytest.mark.parametrize(
    ("given", "inputs", "tokens", "size"),
    [
        ("abc", 1, 0, 3),
        (["ab", "c"], 2, 0, 3),
        ([1, 2, 3], 1, 3, 0),
        ([[1, 2], [3]], 2, 3, 0),
        ([True, None, 1.5, "a", [2, "b", True]], 2, 1, 1),
        ([{"type": "text", "text": "abcd"}, {"type": "image_url", "image_url": {}}], 2, 0, 4),
        (7, 0, 0, 0),
        (None, 0, 0, 0),
    ],
)
def test_inputs_of_every_shape(given: object, inputs: int, tokens: int, size: int) -> None:
    for path, field in (
        ("/v1/embeddings", "input"),
        ("/v1/moderations", "input"),
        ("/v1/completions", "prompt"),
        ("/v1/images/generations", "prompt"),
    ):
        found = measure({field: given}, path)
        assert (found.inputs, found.given, found.utf8_bytes) == (inputs, tokens, size)


def test_every_prompt_has_its_own_answers() -> None:
    assert measure({"prompt": ["a", "b"], "n": 2, "best_of": 3}, "/v1/completions").choices == 6
    assert measure({"prompt": "a", "n": 4, "best_of": 3}, "/v1/completions").choices == 4
    assert measure({"input": ["a", "b"], "n": 2}, "/v1/embeddings").choices == 1


@pytest.mark.parametrize("nonsense", [0, -1, "5", True, 2.0, None, [3], {}])
def test_numbers_that_are_none_count_as_absent(nonsense: object) -> None:
    size = measure({"n": nonsense, "max_tokens": nonsense, "max_completion_tokens": nonsense})
    assert (size.choices, size.cap) == (1, None)


def test_numbers_beyond_sense_are_bounded() -> None:
    size = measure({"n": 10**400, "max_tokens": 10**400})
    assert (size.choices, size.cap) == (10**12, 10**12)


@pytest.mark.parametrize("messages", [None, "hello", 5, {}, [None, 1, "a", [], True]])
def test_messages_that_are_none(messages: object) -> None:
    assert measure({"messages": messages}) == Size(endpoint="chat")


@pytest.mark.parametrize("content", [None, 7, True, {"text": "a"}, [None, 1, ["a"], {"type": ["text"], "text": 3}]])
def test_contents_that_are_none(content: object) -> None:
    assert measure({"messages": [{"role": "user", "content": content}]}) == Size(endpoint="chat", messages=1)


def test_a_part_of_an_unknown_type_counts_by_its_text() -> None:
    assert measure({"messages": [{"content": [{"type": "novel", "text": "abc"}]}]}).texts == ("abc",)


@pytest.mark.parametrize("body", [None, 5, "text", [], [{}]])
def test_bodies_that_are_none(body: object) -> None:
    assert measure(body) == Size(endpoint="chat")


@pytest.mark.parametrize(("text", "length"), [("abc", 3), ("é", 2), ("日本", 6), ("🦄", 4), ("a\ud800", 4)])
def test_bytes_of_a_text(text: str, length: int) -> None:
    assert utf8_length(text) == length


def lists(levels: int) -> object:
    nested: object = "x"
    for _ in range(levels):
        nested = [nested]
    return nested


def schemas(levels: int) -> object:
    nested: object = {"type": "string"}
    for level in range(levels):
        nested = {"properties": {"a": nested}} if level % 2 else {"items": nested, "content": nested}
    return nested


def assert_it_can_be_sized_up(body: object, path: str) -> None:
    size = measure(body, path)
    for formula in charges.FORMULAS:
        assert charges.charge(size, formula) >= 0
    assert charges.billed_input(size) >= 0
    amounts = [amount for _, amount in charges.candidates(size, exact=True)]
    assert amounts == sorted(amounts)
    try:
        charges.check(size, None, Limit("tokens", 100, MINUTE), "exact_plus_cap")
    except RateLimitError as error:
        assert str(error)  # noqa: PT017 - it must print, whatever the numbers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("nest", [lists, schemas])
def test_no_depth_exhausts_the_stack(path: str, nest: Callable[[int], object]) -> None:
    nested = nest(100_000)
    tool = {"type": "function", "function": {"name": "f", "parameters": nested}}
    body = {"messages": [{"content": nested}], "input": nested, "prompt": nested, "tools": [tool], "n": 1}
    assert_it_can_be_sized_up(body, path)
    assert_it_can_be_sized_up({"messages": nested, "tools": nested, "functions": nested}, path)


FIELDS = """
model messages role content type text name input prompt instructions tools functions function parameters properties
items enum description tool_calls arguments n best_of max_tokens max_completion_tokens max_output_tokens stream refusal
image_url url detail truncation previous_response_id output anyOf $defs
"""
KEYS = st.sampled_from(FIELDS.split())
WORDS = st.sampled_from(
    ["text", "image_url", "function", "input_image", "file", "low", "gpt-4o", "data:image/png;base64,"]
)
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5) | WORDS
)
JUNK: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(KEYS, JUNK, max_size=8) | JUNK, st.sampled_from(PATHS))
def test_no_body_raises(body: object, path: str) -> None:
    assert_it_can_be_sized_up(body, path)
