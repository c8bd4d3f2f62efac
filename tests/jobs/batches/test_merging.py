"""Lines of output and error files, as they should be and as they should not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.jobs.batches.merging import read
from ratelimit.jobs.source import digest


def line(response: Any, error: Any = None) -> bytes:
    return json.dumps({"id": "b", "custom_id": "a", "response": response, "error": error}).encode()


@pytest.mark.parametrize(
    ("response", "error", "kind", "code", "undone"),
    [
        ({"status_code": 200, "request_id": "r", "body": {"choices": []}}, None, "answered", "", False),
        ({"status_code": 400, "body": {"error": {"message": "no", "code": "bad"}}}, None, "failed", "bad", False),
        ({"status_code": 404, "body": "gone"}, None, "failed", "404", False),
        ({"status_code": 429, "body": {"error": {"message": "no", "code": "slow"}}}, None, "again", "slow", False),
        ({"status_code": 500, "body": None}, None, "again", "500", False),
        (None, {"code": "batch_expired", "message": "late"}, "again", "batch_expired", True),
        (None, {"code": "batch_cancelled", "message": "late"}, "again", "batch_cancelled", True),
        (None, {"code": "odd", "message": "?"}, "again", "odd", False),
        (None, None, "again", "no_reason", False),
    ],
)
def test_what_a_line_means(response: Any, error: Any, kind: str, code: str, *, undone: bool) -> None:
    found = read(line(response, error))
    assert found
    assert (found.key, found.kind, found.code, found.undone) == (digest(b"a"), kind, code, undone)
    record = json.loads(found.record)
    assert (record["custom_id"], record["error"]) == ("a", error)
    assert b"\n" not in found.record


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[]", b"null", b'{"custom_id": 1}', b'{"custom_id": "\\ud800', b"\xff", b"[" * 100_000]
)
def test_what_is_not_a_whole_line_is_none(damaged: bytes) -> None:
    assert read(damaged) is None


def test_a_line_that_strict_readers_refuse_is_an_answer_all_the_same() -> None:
    found = read(
        line({"status_code": 200, "request_id": "r", "body": {"text": "half: \ud83d", "logprob": float("nan")}})
    )
    assert found
    assert found.kind == "answered"
    assert json.loads(found.record.decode())["response"]["body"] == {"text": "half: \ufffd", "logprob": None}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200))
def test_a_line_cut_short_is_none(length: int) -> None:
    whole = line({"status_code": 200, "request_id": "r", "body": {"choices": [{"text": "x" * 100}]}})
    cut = whole[: min(length, len(whole) - 1)]
    assert read(cut) is None
