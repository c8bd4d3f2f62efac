"""Reading along a stream: however it is cut, the same is found; whatever it holds, nothing is raised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_rig import STREAM

from ratelimit.wire.messages import Trouble, Usage
from ratelimit.wire.sse import Listener


def heard(*pieces: bytes) -> tuple[Trouble | None, Usage | None, bool, bool]:
    listener = Listener()
    for piece in pieces:
        listener.feed(piece)
    listener.finish()
    return listener.trouble, listener.usage, listener.begun, listener.ended


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=6), inside, max_size=3),
    max_leaves=6,
)
USAGES = st.fixed_dictionaries({}, optional=dict.fromkeys(Usage.__struct_fields__, JSON)) | JSON
TROUBLES = st.fixed_dictionaries({}, optional={"message": JSON, "type": JSON, "code": JSON}) | JSON
BODIES = st.fixed_dictionaries({}, optional={"usage": USAGES, "error": TROUBLES})
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["error", "response.created", "response.failed", "response.completed", "x"]) | JSON,
        "usage": USAGES,
        "error": TROUBLES,
        "response": BODIES | JSON,
        "code": JSON,
        "message": JSON,
        "choices": st.just([{"delta": {"content": 'a "usage" and an "error"\n'}, "finish_reason": None}]),
    },
)
LINES = st.one_of(
    EVENTS.map(lambda event: b"data: " + json.dumps(event).encode()),
    EVENTS.map(lambda event: b"data:" + json.dumps(event).encode() + b"\r"),
    st.sampled_from([b"data: [DONE]", b": ping", b"event: error", b"", b"data:", b'data: {"error"', b'data: "usage"']),
    st.binary(max_size=30),
)


@given(st.lists(LINES, max_size=8).map(b"\n".join), st.data())
@settings(max_examples=300, deadline=None)
def test_the_cuts_make_no_difference(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert heard(*pieces) == heard(stream) == heard(*(bytes([byte]) for byte in stream))


@given(st.lists(st.binary(max_size=40), max_size=6))
@settings(max_examples=200, deadline=None)
def test_no_bytes_are_too_odd(pieces: list[bytes]) -> None:
    for stream in (pieces, [b"data: ", *pieces, b'\n"usage"\n']):
        trouble, usage, begun, ended = heard(*stream)
        assert (trouble, usage) == (None, None)  # no such bytes are a whole object
        assert begun or not ended
        assert begun == any(line.startswith(b"data:") for line in b"".join(stream).split(b"\n"))


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("stream", "trouble", "usage", "begun", "ended"),
    [
        (STREAM, None, (10, 20), True, True),
        (event(choices=[{"delta": {"content": '"finish_reason": "stop"'}}]), None, None, True, False),
        (event(choices=[{"delta": {}, "finish_reason": "stop"}]), None, None, True, True),
        (event(choices=[{"delta": {}, "finish_reason": None}]), None, None, True, False),
        (event(type="response.created", response={"usage": None, "error": None}), None, None, False, False),
        (event(type="response.in_progress"), None, None, False, False),
        (event(type="response.output_text.delta", delta="x"), None, None, True, False),
        (
            event(type="response.completed", response={"usage": {"input_tokens": 3, "output_tokens": 4}}),
            None,
            (3, 4),
            True,
            True,
        ),
        (event(type="response.incomplete", response={"error": None, "usage": {}}), None, (0, 0), True, True),
        (event(error={"message": "m", "code": 429}), Trouble("m", None, 429), None, False, False),
        (event(error="m"), Trouble("m"), None, False, False),
        (event(error={}), None, None, True, False),
        (
            event(type="error", code="c", message="m", param=None, sequence_number=3),
            Trouble("m", None, "c"),
            None,
            False,
            True,
        ),
        (event(type="error"), Trouble("an error without a reason"), None, False, True),
        (
            event(type="response.failed", response={"error": {"code": "c", "message": "m"}}),
            Trouble("m", None, "c"),
            None,
            False,
            True,
        ),
        (
            event(type="response.failed", response={"error": None}),
            Trouble("the response failed without a reason"),
            None,
            False,
            True,
        ),
        (b": OPENROUTER PROCESSING\n\n", None, None, False, False),
        (b"<html>\n</html>\n", None, None, False, False),
    ],
)
def test_what_is_found(
    stream: bytes, trouble: Trouble | None, usage: tuple[int, int] | None, begun: bool, ended: bool
) -> None:
    found = heard(stream)
    assert (found[0], (found[1].input, found[1].output) if found[1] else None, *found[2:]) == (
        trouble,
        usage,
        begun,
        ended,
    )


def test_a_line_without_end_is_not_kept() -> None:
    listener = Listener()
    for _ in range(40):
        listener.feed(b"data: " + b"x" * 1_000_000)
    assert len(listener._rest) < 17_000_000
    listener.feed(b'"usage": 1}\n' + event(usage={"prompt_tokens": 5}))
    assert listener.usage == Usage(prompt_tokens=5)


def test_the_end_of_a_line_too_long_is_no_line() -> None:
    listener = Listener()
    listener.feed(b"data: " + b"x" * 17_000_000)
    listener.feed(b'data: {"usage": {"prompt_tokens": 9}}\n')
    assert listener.usage is None
    assert listener.begun
