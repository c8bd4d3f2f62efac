"""Every parser that reads what others wrote, as a function of bytes that raises nothing but what is a bug."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import zstandard

from ratelimit.compose import make_table
from ratelimit.errors import InputUnreadable, RateLimitError
from ratelimit.jobs import records
from ratelimit.jobs.batches import merging
from ratelimit.jobs.batches.ledger import Ledger, read
from ratelimit.jobs.checkpoint import Checkpoint
from ratelimit.jobs.job import spent_before
from ratelimit.jobs.journal import Journal
from ratelimit.jobs.lines import as_line
from ratelimit.jobs.preflight import preflight
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.survey import survey
from ratelimit.jobs.template import Template, Templated
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
    with suppress(InputUnreadable):
        for row in Source("in.jsonl", model="gpt-4o-mini").rows():
            _ = row.key, row.content, row.model
            with suppress(RateLimitError):
                row.request()


def reads_rows(raw: bytes) -> None:
    template = Template("gpt-4o-mini", "{text} {a}")
    for name in ("rows.jsonl", "rows.csv"):
        Path(name).write_bytes(raw)
        with suppress(InputUnreadable):
            for row in Templated(name, template=template).rows():
                _ = row.key, row.content


def looks_through(raw: bytes) -> None:
    Path("in.jsonl").write_bytes(raw)
    with suppress(InputUnreadable):
        for found in preflight(Source("in.jsonl"), lambda row: (row.request().model, 0), None, skip_bad=True):
            assert len(found.problems) <= 20
            assert len(found.marks) <= 2 * found.rows + 1024


def surveys(raw: bytes) -> None:
    Path("in.jsonl").write_bytes(raw)
    with suppress(InputUnreadable):
        for found in survey(Source("in.jsonl"), TABLE):
            assert len(found.problems) <= 1000


def merges(raw: bytes) -> None:
    for line in io.BytesIO(raw):
        merging.read(line)


def reads_checkpoint(raw: bytes) -> None:
    Path("checkpoint").mkdir(exist_ok=True)
    Path("checkpoint/worker-1.jsonl").write_bytes(raw)
    with Checkpoint(Path("checkpoint")):
        pass


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

ROWS = b'{"custom_id": "a", "text": "b"}\n{"text": "\\u00e9", "a": 5}\ntext,a\n"b ""c""\n",d\n'
OUTCOMES = b'{"id": "batch_req_00000000000000aa", "custom_id": "a", "response": null, "error": {"message": "no"}}\n'
TABLE = make_table(load_settings(tier="tier-1"))

READERS: dict[Callable[[bytes], None], tuple[bytes, ...]] = {
    reads_headers: (HEADERS,),
    reads_refusal: (MESSAGE,),
    reads_reply: (REPLY, ERROR, b"[" + ERROR + b"]"),
    reads_stream: (EVENTS, b"data: " + ERROR + b"\n\n", b'data: {"type": "response.failed", "response": {}}'),
    reads_requests: (LINES,),
    reads_rows: (ROWS,),
    merges: (RESULTS, OUTCOMES),
    reads_checkpoint: (RESULTS + OUTCOMES,),
    reads_packed: (gzip.compress(LINES, mtime=0), zstandard.compress(LINES)),
    reads_tiers: (TIERS,),
    reads_settings: (SETTINGS, VARIABLES),
    reads_journal: (JOURNAL,),
    reads_results: (RESULTS,),
    reads_batches: (BATCHES,),
}
