"""Is it worth asking again? Pure: a reply or a failure goes in, a verdict comes out.

done      the reply is what was asked for
again     later, through a new turn: when the service tells, else with back-off
give up   this request cannot succeed; others can
stop      nothing can succeed until somebody acts: the key, the credits
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from ratelimit.errors import KeyRejected, NotAnswered, QuotaExhausted, RateLimitError, RequestFailed
from ratelimit.limits.headers import NOTHING, Observed, parse, parse_refusal
from ratelimit.wire.messages import Reply, Trouble, Usage
from ratelimit.wire.transport import NoAnswer, Unsent

Kind = Literal["done", "again", "give up", "stop"]

_QUOTA = {
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
}
_UNPAID = 402  # how services that are paid in advance say the same
_SLOWED = {"slow_down", "resource_unavailable"}  # 429s that no limit of ours is the reason for
_OVERLOADED = {"server_error", "service_unavailable_error", "overloaded_error"}  # types that have come as 429s, too
_CURABLE = {408, 409, 425}  # of those below 500
_INCURABLE = {501, 505}  # of those from 500 on: the service will know the request no better next time
_BROKEN = 500  # a 2xx that carries no JSON, or an error of no known kind, is worth as much as this
_SHOWN = 200
_ERROR_STATUS = re.compile("[45][0-9]{2}")

# What an error inside a 200 says of itself, in its code or else its type, and the status it would have had.
_STATUSES = {
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "requests", "tokens", *_SLOWED, *_QUOTA), 429),
    **dict.fromkeys(("invalid_api_key", "authentication_error"), 401),
    "permission_error": 403,
    "model_not_found": 404,
    "invalid_request_error": 400,
    "server_is_overloaded": 503,
    "overloaded_error": 529,
}


@dataclass(slots=True)  # not frozen, which would treble the price of what is made for every reply
class Verdict:
    """What to do about one attempt, and what it taught; nobody changes it."""

    kind: Kind
    observed: Observed
    error: RateLimitError | None = None
    usage: Usage | None = None
    after: float | None = None  # seconds, as the service told
    limited: bool = False  # a limit was the reason: costs no attempt, and the lane does the waiting
    slowed: bool = False  # the service asks everybody to slow down
    struggling: bool = False  # the service fails or is silent: fewer at once may help

    @property
    def admitted(self) -> bool:
        """Whether the service has let the request in, so that it was charged."""
        return not self.limited and not self.slowed


def judge(reply: Reply, *, heed: bool = True) -> Verdict:
    """Judge a whole reply; `heed` is whether the headers of one that is fine are worth reading."""
    found = reply.envelope()
    trouble, usage = found or (None, None)
    done = found is not None and trouble is None and 200 <= reply.status < 300
    observed = parse(reply.headers) if heed or not done else NOTHING
    if done:
        return Verdict("done", observed, usage=usage)
    if 200 <= reply.status < 300:
        trouble = trouble or broken(reply.body)
        return replace(trouble_verdict(status_of(trouble), trouble, observed, reply.request_id), usage=usage)
    if trouble is None:
        trouble = Trouble(reply.body[:_SHOWN].decode(errors="replace") or "no body")
    return trouble_verdict(reply.status, trouble, observed, reply.request_id)


def broken(body: bytes) -> Trouble:
    """Return what is wrong with a 2xx that is not what was asked for."""
    shown = body[:_SHOWN].decode(errors="replace")
    return Trouble(f"a broken reply: {shown!r}" if body else "a reply without a body", code="broken_reply")


def judge_failure(failure: Unsent | NoAnswer) -> Verdict:
    """Judge an exchange that gave no reply."""
    error = NotAnswered(str(failure), sent=isinstance(failure, NoAnswer))
    return Verdict("again", NOTHING, error, struggling=True)


def trouble_verdict(status: int, trouble: Trouble, observed: Observed, request_id: str | None = None) -> Verdict:
    """Judge a status and the error that came with it, in a reply or in the middle of a stream."""
    code = None if trouble.code is None else str(trouble.code)
    message = trouble.message or ""
    failed = RequestFailed(status, code or trouble.type, message, request_id=request_id)
    if code in _QUOTA or trouble.type == "insufficient_quota" or status == _UNPAID:
        return Verdict("stop", observed, QuotaExhausted(code or trouble.type or str(status), message), limited=True)
    if status in {401, 403}:
        return Verdict("stop", observed, KeyRejected(status, message))
    if status == 429:
        refusal = parse_refusal(message)
        observed = replace(observed, refusal=refusal)
        if refusal and refusal.kind == "too large":
            return Verdict("give up", observed, failed, limited=True)
        if observed.should_retry is False:
            return Verdict("give up", observed, failed, limited=True)
        slowed = code in _SLOWED or trouble.type in _OVERLOADED
        return Verdict("again", observed, failed, after=observed.retry_after, limited=not slowed, slowed=slowed)
    again = observed.should_retry
    if again is None:
        again = status in _CURABLE or (status >= 500 and status not in _INCURABLE)
    struggling = again and (status >= 500 or status == 408)
    return Verdict("again" if again else "give up", observed, failed, after=observed.retry_after, struggling=struggling)


def status_of(trouble: Trouble) -> int:
    """Return the status an error inside a 200 would have had."""
    code = str(trouble.code or "")
    if _ERROR_STATUS.fullmatch(code):
        return int(code)
    return _STATUSES.get(code) or _STATUSES.get(trouble.type or "", _BROKEN)
