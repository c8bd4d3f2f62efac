"""The lines a job writes: those of the Batch API's output and error files, so that whatever reads those reads ours."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ratelimit.errors import RateLimitError, RequestFailed
from ratelimit.jobs.source import Row
from ratelimit.wire.lenient import for_anybody
from ratelimit.wire.messages import Reply
from ratelimit.wire.story import cause_of


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    request_id: str | None
    body: msgspec.Raw


class _Record(msgspec.Struct, frozen=True):
    id: str
    custom_id: str
    response: _Response | None
    error: dict[str, str] | None


_encode = msgspec.json.Encoder().encode


def answered(row: Row, reply: Reply) -> bytes:
    """Return the line for an answer; its body is the reply's own, on one line."""
    response = _Response(reply.status, reply.request_id, msgspec.Raw(_on_one_line(reply.body)))
    return _encode(_Record(_name(row), row.id, response, None))


def _on_one_line(body: bytes) -> bytes:
    body = for_anybody(body)
    return msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body


def gave_up(row: Row, error: RateLimitError) -> bytes:
    """Return the line for a request that will not succeed."""
    if isinstance(error, RequestFailed):
        trouble = {"message": error.message, "type": None, "param": None, "code": error.code}
        response = _Response(error.status, error.request_id, msgspec.Raw(_encode({"error": trouble})))
        return _encode(_Record(_name(row), row.id, response, None))
    return _encode(_Record(_name(row), row.id, None, {"code": code_of(error), "message": str(error)}))


def code_of(error: RateLimitError) -> str:
    """Return a short name for a kind of error, as the service forms its own."""
    if isinstance(error, RequestFailed):
        return error.code or str(error.status)
    return cause_of(error)


_NAMED = "batch_req_"


def _name(row: Row) -> str:
    return f"{_NAMED}{row.content:016x}"


class Outcome(NamedTuple):
    """What a line says: which row it is about, and the body of the reply as JSON, or why there is none."""

    content: int
    body: str | None
    error: str | None


class _Trouble(msgspec.Struct, frozen=True):
    message: str
    code: str | None = None


class _Failure(msgspec.Struct, frozen=True):
    error: _Trouble


class _Written(msgspec.Struct, frozen=True):
    id: str
    response: _Response | None
    error: _Trouble | None


_written = msgspec.json.Decoder(_Written)
_failure = msgspec.json.Decoder(_Failure)


def outcome(line: bytes) -> Outcome:
    """Return what a line of ours says; raises `ValueError` for any other."""
    try:
        found = _written.decode(line)
        content = int(found.id.removeprefix(_NAMED), 16)
        if not 0 <= content < 2**64:
            raise ValueError("no id of ours")
        if found.response and found.response.status_code < 300:
            return Outcome(content, bytes(found.response.body).decode(), None)
        trouble = _failure.decode(found.response.body).error if found.response else found.error
    except (msgspec.MsgspecError, RecursionError) as error:  # of which the first is a ValueError in some versions only
        raise ValueError(str(error)) from None
    if trouble is None:
        raise ValueError("neither a response nor an error")
    return Outcome(content, None, f"{trouble.code}: {trouble.message}" if trouble.code else trouble.message)
