from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.limits.billed import billed_input
from ratelimit.limits.content import measure
from ratelimit.limits.images import image_tokens, picture

# The example messages and the example tool of the vendor's cookbook, "How to count tokens with tiktoken", which prints
# for each model the count its code makes beside the one the API bills.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon "
        "into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
FUNCTION: dict[str, Any] = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}
TOOLS = [{"type": "function", "function": FUNCTION}]


@pytest.mark.parametrize(("model", "billed"), [("gpt-4", 129), ("gpt-3.5-turbo", 129), ("gpt-4o", 124)])
def test_the_cookbooks_messages(model: str, billed: int) -> None:
    assert billed_input(measure({"model": model, "messages": JARGON})) == billed


@pytest.mark.parametrize(("model", "billed"), [("gpt-4", 105), ("gpt-3.5-turbo", 105), ("gpt-4o-mini", 101)])
def test_the_cookbooks_tool(model: str, billed: int) -> None:
    assert billed_input(measure({"model": model, "messages": WEATHER, "tools": TOOLS})) == billed
    assert billed_input(measure({"model": model, "messages": WEATHER, "functions": [FUNCTION]})) == billed


def test_the_responses_api_has_functions_without_the_wrapping() -> None:
    body = {"model": "gpt-4o", "input": WEATHER, "tools": [{"type": "function", **FUNCTION}]}
    assert billed_input(measure(body, "/v1/responses")) == 101


@pytest.mark.parametrize("where", ["items", "anyOf", "$defs"])
def test_nested_properties_count_like_those_on_top(where: str) -> None:
    inner = {"properties": {"city": {"type": "string", "description": "A city."}}}
    wrapped: object = [inner] if where == "anyOf" else {"a": inner} if where == "$defs" else inner
    bare = {"model": "gpt-4o", "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}
    deep = {
        "model": "gpt-4o",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {where: wrapped}}}],
    }
    # 3 for the properties, 3 for the one, and "city", ":string", ":A", " city"
    assert billed_input(measure(deep)) - billed_input(measure(bare)) == 3 + 3 + 4


def test_a_property_may_have_properties() -> None:
    leaf = {"city": {"type": "string", "description": "A city."}}
    branch = {"city": {"type": "string", "description": "A city.", "properties": leaf}}
    costs = [
        billed_input(
            measure({"model": "gpt-4o", "functions": [{"name": "f", "parameters": {"properties": properties}}]})
        )
        for properties in ({}, leaf, branch)
    ]
    assert (costs[1] - costs[0], costs[2] - costs[1]) == (10, 10)


def test_a_hosted_tool_is_not_counted() -> None:
    body = {"model": "gpt-4o", "input": "hello", "tools": [{"type": "web_search"}]}
    assert billed_input(measure(body, "/v1/responses")) == 8


def test_calls_in_the_conversation_are_input() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "hello", "arguments": "hello world"}}
    body = {"model": "gpt-4o", "messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    assert billed_input(measure(body)) == 3 + 1 + 3 + 1 + 2


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
def test_elsewhere_nothing_is_added_to_the_text(path: str) -> None:
    body = {
        "input": ["tiktoken is great!"] * 2,
        "prompt": ["tiktoken is great!"] * 2,
        "model": "text-embedding-3-small",
    }
    assert billed_input(measure(body, path)) == 12
    assert billed_input(measure({"input": [[1, 2], [3]], "prompt": [1, 2, 3]}, path)) == 3


def test_the_tables_name_decides_how_an_alias_is_counted() -> None:
    class Gpt4:
        name = "gpt-4"
        context_window = max_output = None
        reasoning = False

    assert billed_input(measure({"model": "my-deployment", "messages": JARGON}), Gpt4()) == 129
    assert billed_input(measure({"model": "my-deployment", "messages": JARGON})) == 124


@pytest.mark.parametrize(
    ("model", "size", "detail", "billed"),
    [  # the first five are the vendor's own examples
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("o4-mini", (1024, 1024), "auto", 1762),  # 1024 patches
        ("gpt-4.1-mini", (1800, 2400), "auto", 2353),  # shrunk to 33 by 44 patches, 1452
        ("gpt-4.1-mini", (2400, 1800), "auto", 2353),
        ("gpt-4.1-mini", (100_000, 10), "auto", 2489),
        ("gpt-4.1-mini", (10, 100_000), "auto", 2489),
        ("gpt-4o", (1536, 1152), "high", 765),
        ("gpt-4o", (1537, 1152), "high", 1105),
        ("gpt-4o", (512, 512), "high", 255),
        ("gpt-4o", (513, 512), "high", 425),
        ("gpt-4o", None, "auto", 1445),
        ("gpt-4.1", (1024, 1024), "auto", 765),
        ("gpt-4o-mini", (1024, 1024), "auto", 25501),
        ("gpt-4o-mini", None, "low", 2833),
        ("o1", (512, 512), "auto", 225),
        ("o3-2025-04-16", (512, 512), "auto", 225),
        ("gpt-5", (512, 512), "auto", 210),
        ("ft:gpt-4o-2024-08-06:acme::x", (512, 512), "auto", 255),
        ("gpt-5-mini", (32, 32), "auto", 2),
        ("gpt-5-nano", (32, 33), "auto", 5),
        ("gpt-4.1-nano", None, "auto", 3779),
        ("nobody-knows", (512, 512), "auto", 255),
    ],
)
def test_images_by_model(model: str, size: tuple[int, int] | None, detail: str, billed: int) -> None:
    assert image_tokens(model, size, detail) == billed


@settings(deadline=None)
@given(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1), st.sampled_from(["gpt-4o", "o4-mini"]))
def test_no_image_costs_more_than_one_of_unknown_size(width: int, height: int, model: str) -> None:
    assert 0 < image_tokens(model, (width, height)) <= image_tokens(model, None)


def png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5sI", 13, b"IHDR", width, height, b"\x08\x02\x00\x00\x00", 0)
    return "data:image/png;base64," + base64.b64encode(head + bytes(100)).decode()


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"image_url": {"url": png(640, 480), "detail": "low"}}, ((640, 480), "low")),
        ({"image_url": png(640, 480), "detail": "high"}, ((640, 480), "high")),
        ({"image_url": {"url": "https://x.example/a.png"}}, (None, "auto")),
        ({"image_url": {"url": png(0, 480)}}, (None, "auto")),
        ({"image_url": {"url": png(640, 480)[:40]}}, (None, "auto")),
        ({"image_url": {"url": png(640, 480)[:45]}}, (None, "auto")),
        ({"image_url": {"url": "data:image/png;base64,é"}}, (None, "auto")),
        ({"image_url": {"url": "data:image/png;base64," + "AAAA" * 20}}, (None, "auto")),
        ({"file_id": "file-1"}, (None, "auto")),
        ({"image_url": 5, "detail": ["low"]}, (None, "auto")),
    ],
)
def test_what_a_part_tells_of_its_image(part: dict[str, object], expected: object) -> None:
    assert picture(part) == expected


def test_an_image_is_added_to_the_text() -> None:
    content = [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": png(1024, 1024)}}]
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}
    assert billed_input(measure(body)) == 8 + 765
