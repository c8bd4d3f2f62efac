"""What others wrote, spoilt: every parser says so in words of ours or passes over it, and is done in linear time."""

from __future__ import annotations

import gzip
import re
import sys
import time
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import BadSettings, RateLimitError
from ratelimit.jobs import records
from ratelimit.jobs.batches.ledger import Ledger, read
from ratelimit.jobs.job import spent_before
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.lines import as_line
from ratelimit.jobs.source import Row, Source
from ratelimit.limits.headers import parse, parse_refusal
from ratelimit.limits.tables import parse as parse_table
from ratelimit.settings import load_settings
from ratelimit.wire.judge import judge, status_of
from ratelimit.wire.messages import Reply
from ratelimit.wire.sse import Listener
from ratelimit.wire.streaming import _failed


def reads_headers(raw: bytes) -> None:
    rows = (line.partition(":") for line in raw.decode("utf-8", "surrogateescape").split("\n"))
    found = parse({name: value for name, _, value in rows}, now=1e9)
    numbers = [n for each in found.readings for n in (each.limit, each.remaining, each.reset) if n is not None]
    assert all(0 <= n < 1e12 for n in numbers)
    for each in found.readings:
        each.implied_window()


def reads_refusal(raw: bytes) -> None:
    message = raw.decode("utf-8", "replace")
    if found := parse_refusal(message):
        found.implied_window()
    judge(Reply(429, {}, msgspec.json.encode({"error": {"message": message, "code": message}})))


def reads_reply(raw: bytes) -> None:
    for status in (200, 429, 500):
        reply = Reply(status, {}, raw)
        verdict = judge(reply)
        str(verdict.error)
        if verdict.kind == "done":
            row = Row(1, "id")
            assert records.outcome(as_line(records.answered(row, reply)).rstrip(b"\n")).content == row.content


def judges(raw: bytes) -> None:
    judge(Reply(200, {}, raw))


def listens(raw: bytes) -> None:
    listener = Listener()
    for start in range(0, len(raw), 16_384):
        listener.feed(raw[start : start + 16_384])
    listener.finish()


def reads_stream(raw: bytes) -> None:
    heard = []
    for size in (len(raw) or 1, 1 + len(raw) // 7):
        listener = Listener()
        for start in range(0, len(raw), size):
            listener.feed(raw[start : start + size])
        listener.finish()
        if listener.trouble:
            status_of(listener.trouble)
            judge(_failed(listener.trouble, Reply(200, {}, b"")))
        heard.append((listener.trouble, listener.usage, listener.begun, listener.ended))
    assert heard[0] == heard[1]  # wherever it was cut


def reads_requests(raw: bytes) -> None:
    Path("in.jsonl").write_bytes(raw)
    for row in Source("in.jsonl", model="gpt-4o-mini").rows():
        _ = row.key, row.content, row.model
        with suppress(RateLimitError):
            row.request()


def reads_packed(raw: bytes) -> None:
    for name in ("in.jsonl.gz", "in.jsonl.zst"):
        Path(name).write_bytes(raw)
        with suppress(RateLimitError):
            list(Source(name).rows())


def reads_tiers(raw: bytes) -> None:
    Path("tiers.toml").write_bytes(raw)
    with suppress(RateLimitError):
        parse_table(Path("tiers.toml"))


def reads_settings(raw: bytes) -> None:
    for name in ("ratelimit.toml", "pyproject.toml", ".env"):
        Path(name).write_bytes(raw)
        with suppress(RateLimitError):
            load_settings(tier="tier-1")
        Path(name).unlink()


def reads_journal(raw: bytes) -> None:
    Path("out.journal.jsonl").write_bytes(raw)
    with Journal(Path("out.jsonl")) as journal:
        journal.recover()
        spent_before(journal)


def reads_results(raw: bytes) -> None:
    Path("out.journal.jsonl").unlink(missing_ok=True)  # of whoever was there before
    for name in ("out.jsonl", "out.errors.jsonl"):
        Path(name).write_bytes(raw)
        with suppress(RateLimitError), Journal(Path("out.jsonl")) as journal:
            journal.recover()
        Path(name).unlink()


def reads_batches(raw: bytes) -> None:
    Path("out.batches.jsonl").write_bytes(raw)
    read(Path("out.jsonl"))
    with suppress(RateLimitError), Ledger(Path("out.jsonl")):
        pass


HEADERS = b"""x-ratelimit-limit-requests: 500
x-ratelimit-remaining-requests: 499
x-ratelimit-reset-requests: 120ms
x-ratelimit-limit-tokens: 200000, 200000
x-ratelimit-remaining-tokens: 199000
x-ratelimit-reset-tokens: 1m2.5s
x-ratelimit-renewalperiod-tokens: 60
retry-after-ms: 20
retry-after: Thu, 01 Jan 2026 00:00:00 GMT
date: Thu, 01 Jan 2026 00:00:00 GMT
x-should-retry: true"""
MESSAGE = (
    b"Rate limit reached for gpt-4o (for limit gpt-4o) in organization org-1 on tokens per min (TPM): "
    b"Limit 30000, Used 29000, Requested 2000. Please try again in 1m2.5s. Visit https://example.com"
)
ERROR = b'{"error": {"message": "no", "type": "server_error", "param": null, "code": "500"}}'
REPLY = (
    b'{"id": "1", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 10, "completion_tokens": 2.0}, "error": null}'
)
EVENTS = (
    b'data: {"type": "response.created"}\n\nevent: x\ndata: {"choices": [{"delta": {"content": "a"}}]}\r\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 1}, "finish_reason": "stop"}\n\ndata: [DONE]\n\n'
)
LINES = (
    b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4o", "messages": []}}'
    b'\n{"messages": [{"role": "user", "content": "hi"}]}\n'
)
TIERS = (
    b'[models."gpt-4o"]\nsnapshots = ["gpt-4o-2024-08-06"]\nprices = { input = 2.5, output = 10 }\n'
    b'[models."gpt-4o".tiers]\nfree = "not supported"\ntier-1 = { rpm = 500, tpm = 30_000 }\n'
    b'[providers.here]\nbase_url = "http://localhost/v1"\n[sources.a]\ntext = "b"\nas_of = 2026-01-02\n'
)
SETTINGS = b'[settings]\ntier = "tier-1"\nrpm = 30\nslack = 1.5\n[tool.ratelimit]\ntpm = 1\napi_key = "sk-0123456789"\n'
VARIABLES = b"RATELIMIT_TIER=tier-1\nexport RATELIMIT_RPM = '30'\nOPENAI_API_KEY=\"sk-0123456789\"\n"
JOURNAL = (
    b'{"sent": "a", "content": 12345678901234567890}\n{"turned_away": "a"}\n'
    b'{"checked": {"setup": 1, "size": 2, "modified": 3, "rows": 4, "lanes": {"gpt-4o": [5, 6.5]}}}\n'
    b'{"spent": {"gpt-4o": {"RPM": 3.5}}, "at": 1e9}\n'
)
RESULTS = b'{"id": "batch_req_01", "custom_id": "a", "response": {"status_code": 200, "body": {}}, "error": null}\n'
BATCHES = (
    b'{"job": "0123"}\n{"tag": "1", "intent": {"lane": "gpt-4o", "endpoint": "/v1/chat/completions", "tokens": 5,'
    b' "rows": 1, "keys": "AAAAAAAAAAA=", "at": 1.5}}\n{"tag": "1", "file": "file-1"}\n{"tag": "1", "batch": "b"}\n'
    b'{"tag": "1", "ended": "completed", "answered": 1}\n{"deadline": 3600.0, "at": 1.0}\n'
)

READERS: dict[Callable[[bytes], None], tuple[bytes, ...]] = {
    reads_headers: (HEADERS,),
    reads_refusal: (MESSAGE,),
    reads_reply: (REPLY, ERROR, b"[" + ERROR + b"]"),
    reads_stream: (EVENTS, b"data: " + ERROR + b"\n\n", b'data: {"type": "response.failed", "response": {}}'),
    reads_requests: (LINES,),
    reads_packed: (gzip.compress(LINES, mtime=0), zstandard.compress(LINES)),
    reads_tiers: (TIERS,),
    reads_settings: (SETTINGS, VARIABLES),
    reads_journal: (JOURNAL,),
    reads_results: (RESULTS,),
    reads_batches: (BATCHES,),
}
NASTY = (
    *(b"0", b"-1", b"-0.5", b"1e308", b"1e999", b"NaN", b"Infinity", b"9" * 20, b"9" * 400, b"9" * 5_000),
    *(b'"0500%s"' % (b"0" * 5_000), b"18446744073709551616", b"-9223372036854775809", "\u0665".encode()),
    *(b"null", b"true", b"[]", b"{}", b'""', b'"', b"'", b"\\", b"=", b",", b":", b'"\\ud800"', b'"\\u0000"'),
    *(b"\x00", b"\x1b[2J", b"\x7f", b"\xff", b"\xc2\x85", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n"),
    *(
        b"[" * 3_000,
        b'{"a":' * 3_000,
        b"[" * 900 + b"1" + b"]" * 900,
        b"~nobody/a",
        b"a." * 3_000 + b"a",
        b"[" + b"a." * 900 + b"a]",
    ),
)


@st.composite
def spoilt(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Something right of which a few words have become something else."""
    words = re.findall(rb"[\w.]+|\s+|[^\w\s]", draw(st.sampled_from(seeds)))
    others = st.sampled_from(NASTY) | st.sampled_from(words) | st.binary(max_size=4)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(range(len(words))))
        words[at : at + draw(st.integers(0, 1))] = [draw(others)]
    return b"".join(words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


FOUND: tuple[tuple[Callable[[bytes], None], bytes], ...] = (
    (reads_stream, b'data: {"error": {"message": "no", "code": "0500%s"}}\n\n' % (b"0" * 5_000)),
    (reads_journal, b'{"sent": "a", "content": -1}\n'),
    (reads_journal, b'{"sent": "a", "content": 18446744073709551616}\n'),
    (reads_settings, b"a = " + b"9" * 5_000),
    (reads_settings, b"a = " + b"[" * 5_000),
    (reads_settings, b'[settings]\ntiers_file = "~nobody/a"'),
)


@pytest.mark.parametrize(("reader", "raw"), FOUND)
def test_what_has_been_found_so(reader: Callable[[bytes], None], raw: bytes, folder: Path) -> None:
    with chdir(folder):
        reader(raw)


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("ratelimit.toml", b"#" * 500_001, "it has 500,001 bytes, at most 500,000 are read"),
        ("ratelimit.toml", b"\n[a" + b".a" * 1_001 + b"]", "line 2 has more than 1,000 dots"),
        ("ratelimit.toml", b"a = " + b"[" * 5_000, "its values are nested too deeply"),
        (".env", b"#" * 100_001, "it has 100,001 bytes, at most 100,000 are read"),
    ],
)
def test_what_would_take_too_long_is_refused(name: str, raw: bytes, said: str, tmp_path: Path) -> None:
    with chdir(tmp_path):
        Path(name).write_bytes(raw)
        with pytest.raises(BadSettings) as caught:
            load_settings(tier="tier-1")
    assert str(caught.value) == f"{name} cannot be read ({said}): correct it, or remove it"


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@settings(max_examples=max(250, settings().max_examples), deadline=None)
@given(data=st.data())
def test_no_error_but_ours(reader: Callable[[bytes], None], folder: Path, data: st.DataObject) -> None:
    with chdir(folder):
        reader(data.draw(spoilt(READERS[reader])))


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
    "a result of one line": (reads_results, filled(b"x", RESULTS[:-2])),
    "results": (reads_results, filled(RESULTS)),
    "a batch of one line": (reads_batches, filled(b"AAAA", BATCHES[:150], b'"}}\n')),
    "batches": (reads_batches, filled(BATCHES)),
}


def seconds(reader: Callable[[bytes], None], raw: bytes) -> float:
    """The less of two: whatever else the machine does only adds."""
    taken = []
    for _ in range(2 if len(raw) > 1_000_000 else 1):
        began = time.process_time()
        reader(raw)
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize("kind", WORST)
def test_time_grows_as_the_input_does_and_ten_megabytes_take_less_than_a_second(kind: str, folder: Path) -> None:
    reader, make = WORST[kind]
    with chdir(folder):
        few, many = seconds(reader, make(400_000)), seconds(reader, make(10_000_000))
    assert many <= 2 * 25 * few + 0.1
    if sys.gettrace() is None:  # a tracer takes longer than what it traces; the run on the wheel has none
        assert max(few, many) <= 1.0
