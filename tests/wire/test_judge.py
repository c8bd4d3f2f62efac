"""The table of judgements, row by row: statuses, codes, headers, and errors inside a 200."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wire_rig import CHAT

from ratelimit.errors import JobStopped, KeyRejected, NotAnswered, QuotaExhausted, RequestFailed
from ratelimit.wire.judge import Verdict, judge, judge_failure
from ratelimit.wire.messages import Reply, Usage
from ratelimit.wire.retry import Again, Patience, Policy
from ratelimit.wire.transport import NoAnswer, Unsent

REACHED = (
    "Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 29937, "
    "Requested 385. Please try again in 644ms. Visit https://platform.openai.com/account/rate-limits to learn more."
)
TOO_LARGE = (
    "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 40000. The "
    "input or output tokens must be reduced in order to run successfully."
)


def error(message: str = "no", kind: str | None = None, code: str | float | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def judged(status: int, body: object, **headers: str) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw))


def flags(verdict: Verdict) -> str:
    """`limited`, `slowed` and `struggling`, as far as they are so."""
    return " ".join(name for name in ("limited", "slowed", "struggling") if getattr(verdict, name))


@pytest.mark.parametrize(
    ("status", "body", "kind", "flagged"),
    [
        (200, CHAT, "done", ""),
        (201, {}, "done", ""),
        (200, {"error": None}, "done", ""),
        (200, {"error": {}}, "done", ""),
        (200, {"error": ""}, "done", ""),
        (200, {"usage": {"prompt_tokens": "many"}}, "done", ""),
        (200, {"usage": [1, 2]}, "done", ""),
        (429, error(REACHED, "tokens", "rate_limit_exceeded"), "again", "limited"),
        (429, error("?", "requests", "rate_limit_exceeded"), "again", "limited"),
        (429, error("?", "input-images", "rate_limit_exceeded"), "again", "limited"),
        (429, b"Too Many Requests", "again", "limited"),
        (429, b"", "again", "limited"),
        (429, [error("Gemini wraps it in a list", None, 429)], "again", "limited"),
        (429, error("ramp", "rate_limit_error", "slow_down"), "again", "slowed"),
        (429, error("Resource Unavailable", None, "resource_unavailable"), "again", "slowed"),
        (429, error("That model is currently overloaded with other requests", "server_error"), "again", "slowed"),
        (429, error(TOO_LARGE, "tokens", "rate_limit_exceeded"), "give up", "limited"),
        (429, error("quota", "insufficient_quota", "insufficient_quota"), "stop", "limited"),
        (429, error("none", "insufficient_quota", "credit_balance_exhausted"), "stop", "limited"),
        (429, error("cap", "insufficient_quota", "organization_spend_limit_exceeded"), "stop", "limited"),
        (429, error("cap", "insufficient_quota", "project_spend_limit_exceeded"), "stop", "limited"),
        (429, error("cap", "insufficient_quota", "organization_usage_limit_exceeded"), "stop", "limited"),
        (429, error("cap", "insufficient_quota", "a_code_of_tomorrow"), "stop", "limited"),
        (429, error("cap", None, "project_spend_limit_exceeded"), "stop", "limited"),
        (400, error("cap", "invalid_request_error", "billing_hard_limit_reached"), "stop", "limited"),
        (401, error("Incorrect API key", "invalid_request_error", "invalid_api_key"), "stop", ""),
        (401, b"", "stop", ""),
        (403, error("country"), "stop", ""),
        (400, error("bad", "invalid_request_error"), "give up", ""),
        (400, error("long", "invalid_request_error", "context_length_exceeded"), "give up", ""),
        (400, error("image", "invalid_request_error", "invalid_image_url"), "give up", ""),
        (404, error("no such model", "invalid_request_error", "model_not_found"), "give up", ""),
        (405, error(), "give up", ""),
        (413, error(), "give up", ""),
        (422, error(), "give up", ""),
        (408, error(), "again", "struggling"),
        (409, error(), "again", ""),
        (425, error(), "again", ""),
        (500, error("The server had an error", "server_error"), "again", "struggling"),
        (502, b"<html>Bad Gateway</html>", "again", "struggling"),
        (503, error("overloaded", "service_unavailable_error", "server_is_overloaded"), "again", "struggling"),
        (503, error("The engine is currently overloaded", "server_error"), "again", "struggling"),
        (504, b"", "again", "struggling"),
        *((status, b"cloudflare", "again", "struggling") for status in range(520, 531)),
        (501, error(), "give up", ""),
        (505, error(), "give up", ""),
    ],
)
def test_each_row_of_the_table(status: int, body: object, kind: str, flagged: str) -> None:
    verdict = judged(status, body)
    assert (verdict.kind, flags(verdict)) == (kind, flagged)
    assert (verdict.error is None) == (kind == "done")


@pytest.mark.parametrize(
    ("body", "kind", "flagged", "said"),
    [
        (b"<html>hello</html>", "again", "struggling", "500 broken_reply: a broken reply: '<html>hello</html>'"),
        (b"[]", "again", "struggling", "500 broken_reply: a broken reply: '[]'"),
        (b"null", "again", "struggling", "500 broken_reply: a broken reply: 'null'"),
        (b"", "again", "struggling", "500 broken_reply: a reply without a body"),
        (b'{"choices":[{"mess', "again", "struggling", '500 broken_reply: a broken reply: \'{"choices":[{"mess\''),
        (b'{"id":1} trailing', "again", "struggling", "500 broken_reply: a broken reply: '{\"id\":1} trailing'"),
        (b'{"error":"server on fire"}', "again", "struggling", "500: server on fire"),
        (error("boom", "server_error"), "again", "struggling", "500 server_error: boom"),
        (error("?", "server_error", "server_is_overloaded"), "again", "struggling", "503 server_is_overloaded: ?"),
        (error(REACHED, "tokens", "rate_limit_exceeded"), "again", "limited", f"429 rate_limit_exceeded: {REACHED}"),
        (error("ramp", "rate_limit_error", "slow_down"), "again", "slowed", "429 slow_down: ramp"),
        (error("wait", None, 429), "again", "limited", "429 429: wait"),
        (error("upstream", None, 502), "again", "struggling", "502 502: upstream"),
        (error("upstream", None, 504.0), "again", "struggling", "500 504.0: upstream"),
        (error("bad", "invalid_request_error"), "give up", "", "400 invalid_request_error: bad"),
        (error("who", "invalid_request_error", "model_not_found"), "give up", "", "404 model_not_found: who"),
        ({"error": {"type": "server_error"}}, "again", "struggling", "500 server_error: "),
        ({"error": {"message": {"nested": 1}}}, "again", "struggling", '500: {"nested":1}'),
    ],
)
def test_a_200_that_is_none(body: object, kind: str, flagged: str, said: str) -> None:
    verdict = judged(200, body)
    assert (verdict.kind, flags(verdict)) == (kind, flagged)
    assert isinstance(verdict.error, RequestFailed)
    assert str(verdict.error) == f"the service answered {said}"


def test_errors_inside_a_200_that_stop_everything() -> None:
    key = judged(200, error("no such key", "invalid_request_error", "invalid_api_key")).error
    quota = judged(200, error("empty", "insufficient_quota", "insufficient_quota")).error
    assert isinstance(key, KeyRejected)
    assert isinstance(quota, QuotaExhausted)
    assert isinstance(judged(200, error("forbidden", None, 403)).error, JobStopped)


def test_what_stops_says_what_to_do() -> None:
    assert str(judged(401, error("Incorrect API key provided: sk-abc***xyz.")).error) == (
        "the service rejected the API key (401): Incorrect API key provided: sk-abc***xyz. Set OPENAI_API_KEY (and "
        "OPENAI_ORG_ID, OPENAI_PROJECT_ID) to ones that may use this model, then run again"
    )
    assert str(judged(429, error("You have no credits remaining.", None, "credit_balance_exhausted")).error) == (
        "the account's quota is used up (credit_balance_exhausted): You have no credits remaining. Add credits or "
        "raise the spending limit, then run again"
    )
    assert str(judged(503, b"\x1b[31mred\xff" + b"x" * 1000).error) == (
        f"the service answered 503: \\x1b[31mred\ufffd{'x' * (200 - 9)}"
    )


@pytest.mark.parametrize(
    ("status", "should", "kind"),
    [
        (400, "true", "again"),
        (404, "true", "again"),
        (500, "false", "give up"),
        (503, "false", "give up"),
        (409, "false", "give up"),
        (429, "false", "give up"),
        (429, "true", "again"),
        (401, "true", "stop"),
        (500, "perhaps", "again"),
        (400, "perhaps", "give up"),
        (200, "true", "done"),
    ],
)
def test_the_service_may_say_itself_whether_to_ask_again(status: int, should: str, kind: str) -> None:
    verdict = judged(status, CHAT if status == 200 else error(), x_should_retry=should)
    assert verdict.kind == kind
    assert not (verdict.kind == "give up" and verdict.struggling)


@pytest.mark.parametrize(
    ("headers", "told", "waited"),
    [
        ({"retry_after_ms": "1500"}, 1.5, 1.5),
        ({"retry_after": "7"}, 7, 7),
        ({"retry_after": "7", "retry_after_ms": "250"}, 0.25, 0.25),
        ({"retry_after": "0"}, 0, 0),
        ({"retry_after": "3600"}, 3600, 60),
        ({"retry_after": "Sat, 21 Nov 2026 10:00:09 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 9, 9),
        ({"retry_after": "Sat, 21 Nov 2026 12:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 7200, 60),
        ({"retry_after": "-5"}, None, None),
        ({"retry_after": "inf"}, None, None),
        ({"retry_after": "nan"}, None, None),
        ({"retry_after": "soon"}, None, None),
        ({"retry_after": "315360000"}, None, None),
    ],
)
def test_waits_are_as_told_and_never_absurd(headers: dict[str, str], told: float | None, waited: float | None) -> None:
    verdict = judged(503, error(), **headers)
    assert verdict.after == told
    if waited is not None:
        patience = Patience(Policy(longest_wait=60), Again(verdict, counts=True), lambda: True)
        assert patience.wait(None) == waited  # type: ignore[arg-type]


def test_usage_is_read_whichever_vocabulary_it_is_in() -> None:
    assert judged(200, CHAT).usage == Usage(prompt_tokens=10, completion_tokens=20)
    usage = judged(200, {"usage": {"input_tokens": 3, "output_tokens": 4, "cost": 0.1}}).usage
    assert usage
    assert (usage.input, usage.output) == (3, 4)
    failed = judged(200, {**error("late"), "usage": {"prompt_tokens": 5}})
    assert (failed.kind, failed.usage) == ("again", Usage(prompt_tokens=5))


@pytest.mark.parametrize("count", [-5, 1e300, 1e9, "12", None, True])
def test_absurd_usage_counts_for_nothing(count: object) -> None:
    usage = judged(200, {"usage": {"prompt_tokens": count, "completion_tokens": 7}}).usage
    assert usage
    assert (usage.input, usage.output) == (0, 7)


def test_refusals_are_parsed_only_from_429s() -> None:
    assert judged(429, error(REACHED)).observed.refusal is not None
    assert judged(400, error(REACHED)).observed.refusal is None


def test_an_exchange_without_a_reply_is_worth_another() -> None:
    unsent, silent = judge_failure(Unsent("no connection to x")), judge_failure(NoAnswer("x was silent"))
    assert (unsent.kind, flags(unsent), silent.kind, flags(silent)) == ("again", "struggling", "again", "struggling")
    assert isinstance(unsent.error, NotAnswered)
    assert isinstance(silent.error, NotAnswered)
    assert str(unsent.error) == (
        "no connection to x; it was not sent. If this persists, look at the network, the base URL and the time-outs"
    )
    assert str(silent.error) == (
        "x was silent; it may have been billed. If this persists, look at the network, the base URL and the time-outs"
    )


def test_an_error_inside_a_200_is_heeded_whatever_else_is_not() -> None:
    raw = json.dumps(error("wait", None, 429)).encode()
    assert judge(Reply(200, {"retry-after": "7"}, raw), heed=False).after == 7
    assert judge(Reply(200, {"retry-after": "7"}, b"{}"), heed=False).observed.retry_after is None
