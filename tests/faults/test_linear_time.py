"""The worst that a parser can be given: its time grows as the input does, and ten megabytes take less than a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import chdir
from math import inf
from pathlib import Path

import pytest
from foreign import (
    BATCHES,
    JOURNAL,
    LINES,
    MESSAGE,
    RESULTS,
    TIERS,
    judges,
    listens,
    looks_through,
    merges,
    reads_batches,
    reads_checkpoint,
    reads_headers,
    reads_journal,
    reads_refusal,
    reads_requests,
    reads_results,
    reads_rows,
    reads_settings,
    reads_tiers,
    surveys,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


def filled(piece: bytes, before: bytes = b"", after: bytes = b"") -> Callable[[int], bytes]:
    """So many bytes of one piece over and over."""
    return lambda size: before + piece * (size // len(piece)) + after


WORST: dict[str, tuple[Callable[[bytes], None], Callable[[int], bytes]]] = {
    "a header": (reads_headers, filled(b"1", b"x-ratelimit-reset-tokens: ")),
    "headers merged": (reads_headers, filled(b"5, ", b"retry-after: ")),
    "many headers": (reads_headers, filled(b"x-ratelimit-limit-tokens: 5\n")),
    "refusal begun": (reads_refusal, filled(b"Rate limit reached for m ")),
    "refusal of spaces": (reads_refusal, filled(b" ", b"Rate limit reached for m")),
    "refusal of digits": (reads_refusal, filled(b"9", MESSAGE[:130])),
    "reply of digits": (judges, filled(b"9")),
    "reply of brackets": (judges, filled(b"[")),
    "reply of escapes": (judges, filled(b"\\u0041", b'{"error": {"message": "', b'"}}')),
    "reply on lines": (judges, filled(b"\n1,", b'{"a": [', b'\n1], "usage": {}}')),
    "reply of broken letters": (judges, filled(b"\xff", b'{"a": "', b'"}')),
    "a long event": (listens, filled(b'"usage" ', b"data: ")),
    "events": (listens, filled(b'data: {"usage": {}, "error": {"code": 1}}\n\n')),
    "finish that never comes": (listens, filled(b'"finish_reason": ', b"data: ")),
    "finish of spaces": (listens, filled(b" ", b'data: "finish_reason":')),
    "events without data": (listens, filled(b"data:\n")),
    "blank events": (listens, filled(b"\n")),
    "events of nothing": (listens, filled(b"data: {}\n\n")),
    "lines of no event": (listens, filled(b": keep-alive\n")),
    "a long request": (reads_requests, filled(b"x", b'{"a": "', b'"}')),
    "request of brackets": (reads_requests, filled(b"[")),
    "request of spaces": (reads_requests, filled(b" ", b"{", b"}")),
    "requests": (reads_requests, filled(LINES)),
    "requests broken off": (
        reads_requests,
        filled(
            b'{"custom_id": "a", "method": "POST", "body": {"model": "a", "messages": [{"content": "and so it broke\n'
        ),
    ),
    "lines that are no requests": (looks_through, filled(b"2\n")),
    "lines that are no requests after one that is": (looks_through, filled(b"2\n", LINES)),
    "objects that are no requests": (looks_through, filled(b"{}\n", LINES)),
    "blank lines": (looks_through, filled(b"\n", b"", LINES)),
    "a plan of no requests": (surveys, filled(b"{}\n", LINES)),
    "rows of nothing": (reads_rows, filled(b"2\n", b"{}\n")),
    "blank rows": (reads_rows, filled(b"\n")),
    "a key of parts": (reads_tiers, filled(b"a.", b"[", b"a]")),
    "quoted parts": (reads_tiers, filled(b'"a" . ', b"", b"a = 1")),
    "a text of TOML": (reads_tiers, filled(b"\\u0041", b'a = "', b'"')),
    "a list of TOML": (reads_tiers, filled(b"1,", b"a = [", b"]")),
    "tables": (reads_tiers, filled(TIERS)),
    "digits of TOML": (reads_tiers, filled(b"9", b"a = ")),
    "settings of parts": (reads_settings, filled(b"a.", b"", b"a = 1")),
    "settings": (reads_settings, filled(b"RATELIMIT_TIER=a\n")),
    "a journal of one line": (reads_journal, filled(b"x")),
    "journal": (reads_journal, filled(JOURNAL)),
    "a journal of few words": (reads_journal, filled(b'{"sent":"a"}\n')),
    "a journal of no entries": (reads_journal, filled(b"2\n")),
    "a journal of blank lines": (reads_journal, filled(b"\n")),
    "results that are none": (reads_results, filled(b"2\n")),
    "a batch of no answers": (merges, filled(b"2\n")),
    "a worker's file of blank lines": (reads_checkpoint, filled(b"\n")),
    "a result of one line": (reads_results, filled(b"x", RESULTS[:-2])),
    "results": (reads_results, filled(RESULTS)),
    "a batch of one line": (reads_batches, filled(b"AAAA", BATCHES[:150], b'"}}\n')),
    "batches": (reads_batches, filled(BATCHES)),
    "batches of few words": (reads_batches, filled(b"{}\n")),
    "batches of blank lines": (reads_batches, filled(b"\n")),
}


def seconds(reader: Callable[[bytes], None], raw: bytes) -> float:
    began = time.process_time()
    reader(raw)
    return time.process_time() - began


@pytest.mark.parametrize("kind", WORST)
def test_time_grows_as_the_input_does_and_ten_megabytes_take_less_than_a_second(kind: str, folder: Path) -> None:
    reader, make = WORST[kind]
    size, most = 10_000_000, 1.0
    if sys.gettrace():  # which takes longer than what it traces
        size, most = 2_000_000, inf
    raw = make(size)
    with chdir(folder):
        few, many = seconds(reader, make(400_000)), seconds(reader, raw)
        most = min(most, 2 * size / 400_000 * few + 0.1)
        if many > most:  # the less of two: whatever else the machine does only adds
            many = min(many, seconds(reader, raw))
    assert many <= most
