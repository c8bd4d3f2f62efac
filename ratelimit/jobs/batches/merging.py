"""What a batch's output and error files say, line by line. Pure: bytes in, outcomes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from ratelimit.jobs.source import digest
from ratelimit.wire.lenient import for_anybody
from ratelimit.wire.messages import Reply, trouble_of

Kind = Literal["answered", "failed", "again"]

_UNDONE = {"batch_expired", "batch_cancelled"}
_LEAST = len('{"custom_id":""}')
_CURABLE = {408, 409, 425, 429}


class _Response(msgspec.Struct, frozen=True):
    status_code: int
    request_id: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Result(msgspec.Struct, frozen=True):
    custom_id: str
    id: str = ""
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Result).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line: which row it is about, what has become of it, and the line that a job writes for it."""

    key: int
    kind: Kind
    record: bytes
    code: str = ""
    undone: bool = False  # it was never executed, so that nothing has failed
    reply: Reply | None = None


def read(line: bytes) -> Outcome | None:
    """Return what a line says; None for one that is not whole."""
    if len(line) < _LEAST:
        return None
    try:
        found = _decode(for_anybody(line))
        record, key = _encode(found), digest(found.custom_id.encode())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    response = found.response
    if response is None:
        trouble = trouble_of(msgspec.json.decode(found.error))
        code = str(trouble.code or "no_reason") if trouble else "no_reason"
        undone = code in _UNDONE
        return Outcome(key, "again", record, code, undone)
    if 200 <= response.status_code < 300:
        return Outcome(key, "answered", record, reply=Reply(response.status_code, {}, bytes(response.body)))
    envelope = Reply(response.status_code, {}, bytes(response.body)).envelope()
    said = envelope[0] if envelope else None
    code = str((said.code if said else None) or response.status_code)
    again = response.status_code in _CURABLE or response.status_code >= 500
    return Outcome(key, "again" if again else "failed", record, code)
