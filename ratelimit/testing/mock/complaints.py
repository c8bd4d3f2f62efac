"""What is wrong with a request body, in the service's words.

Only bodies that the typed decoders refuse come here, so this may be slow: it decodes into plain objects and walks one
table of fields. The first thing wrong is the one reported, as the service does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ratelimit.testing.mock.refusals import NO_MODEL, NOT_JSON, Problem, Refused

_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "string": (str, "a string"),
    "integer": (int, "an integer"),
    "boolean": (bool, "a boolean"),
    "object": (dict, "an object"),
    "messages": (list, "an array of objects"),
    "objects": (list, "an array of objects"),
    "text": ((str, list), "a string or an array"),
}

_COMMON = {"stream": "boolean", "metadata": "object"}
_FIELDS: dict[str, dict[str, str]] = {
    "chat": {
        "messages": "messages",
        "max_completion_tokens": "integer",
        "max_tokens": "integer",
        "n": "integer",
        "stream_options": "object",
        "response_format": "object",
        "tools": "objects",
        **_COMMON,
    },
    "completions": {"prompt": "text", "max_tokens": "integer", "n": "integer", **_COMMON},
    "responses": {
        "input": "text",
        "instructions": "string",
        "max_output_tokens": "integer",
        "tools": "objects",
        "text": "object",
        "stream_options": "object",
        **_COMMON,
    },
    "embeddings": {"input": "text", "encoding_format": "string", "dimensions": "integer"},
    "moderations": {"input": "text"},
}
_REQUIRED = {"chat": "messages", "responses": "input", "embeddings": "input", "moderations": "input"}
_AT_LEAST_ONE = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "dimensions")


def complain(raw: bytes, endpoint: str) -> Refused:
    """The refusal of a body that could not be read; bodies the table finds nothing wrong with are invalid JSON."""
    try:
        raw.decode()
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Refused(NOT_JSON)
    if not isinstance(body, dict):
        return Refused(NOT_JSON)
    return Refused(_model(body, endpoint) or _fields(body, endpoint) or _ranges(body) or _contents(body, endpoint))


def _model(body: Mapping[str, Any], endpoint: str) -> Problem | None:
    if "model" not in body:
        return NO_MODEL if endpoint != "moderations" else None
    return None if isinstance(body["model"], str) else _wrong_type("model", "a string", body["model"])


def _fields(body: Mapping[str, Any], endpoint: str) -> Problem | None:
    required = _REQUIRED.get(endpoint)
    if required and body.get(required) is None:
        return Problem(
            400, f"Missing required parameter: '{required}'.", code="missing_required_parameter", param=required
        )
    for name, kind in _FIELDS[endpoint].items():
        value = body.get(name)
        types, said = _KINDS[kind]
        if value is None:
            continue
        if not isinstance(value, types) or (kind == "integer" and isinstance(value, bool)):
            return _wrong_type(name, said, value)
        if isinstance(value, list) and (kind in ("messages", "objects")):
            for index, each in enumerate(value):
                if not isinstance(each, dict):
                    return _wrong_type(f"{name}[{index}]", "an object", each)
    return None


def _ranges(body: Mapping[str, Any]) -> Problem | None:
    for name in _AT_LEAST_ONE:
        value = body.get(name)
        if isinstance(value, int) and value < 1:
            return Problem(
                400,
                f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead.",
                code="integer_below_min_value",
                param=name,
            )
    return None


def _contents(body: Mapping[str, Any], endpoint: str) -> Problem:
    name = _REQUIRED.get(endpoint, "prompt")
    value = body.get(name)
    if value == []:
        return Problem(
            400,
            f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            code="empty_array",
            param=name,
        )
    if endpoint == "embeddings" and isinstance(value, list) and len(value) > 2048:
        return Problem(
            400,
            f"Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with "
            f"length {len(value)} instead.",
            code="array_above_max_length",
            param="input",
        )
    if endpoint == "chat" and isinstance(value, list):
        return _messages(value)
    if body.get("encoding_format") not in (None, "float", "base64"):
        return Problem(
            400,
            f"Invalid value: '{body['encoding_format']}'. Supported values are: 'float' and 'base64'.",
            code="invalid_value",
            param="encoding_format",
        )
    return Problem(
        400, f"Invalid '{name}': its items are empty or of the wrong type.", code="invalid_value", param=name
    )


def _messages(messages: list[dict[str, Any]]) -> Problem:
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message.get("role"), str):
            return Problem(
                400,
                f"Missing required parameter: '{where}.role'.",
                code="missing_required_parameter",
                param=f"{where}.role",
            )
        if not isinstance(message.get("content"), str | list | None):
            return _wrong_type(f"{where}.content", "one of a string or array of objects", message["content"])
    return Problem(400, "Invalid value in 'messages'.", code="invalid_value", param="messages")


def _wrong_type(name: str, expected: str, value: object) -> Problem:
    kinds = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal number", list: "an array"}
    got = "null" if value is None else kinds.get(type(value), "an object")
    return Problem(
        400,
        f"Invalid type for '{name}': expected {expected}, but got {got} instead.",
        code="invalid_type",
        param=name,
    )
