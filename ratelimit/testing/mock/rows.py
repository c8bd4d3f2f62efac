"""The lines of a batch: checked as the service checks an input file, then answered one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ratelimit.testing.mock.answers import Stamp, Writer
from ratelimit.testing.mock.catalogue import Catalogue, Family
from ratelimit.testing.mock.endpoints import ENDPOINTS, Endpoint
from ratelimit.testing.mock.refusals import Refused

_MOST_ROWS = 50_000
_MOST_ERRORS = 100

_SAID = {
    "invalid_json_line": "This line is not parseable as valid JSON.",
    "duplicate_custom_id": "The custom_id for this request is a duplicate of another request. The custom_id parameter "
    "must be unique for each request in a batch.",
    "url_mismatch": "The URL provided for this request does not match the batch endpoint.",
    "model_mismatch": "The provided model does not match the model of the other requests in this batch. Each batch "
    "must contain requests for a single model.",
    "invalid_method": "The method provided for this request is not supported: only POST is.",
    "missing_required_parameter": "A required field is missing from this request: custom_id, method, url and body.",
    "empty_file": "The input file is empty.",
    "too_many_tasks": f"The batch input file contains more requests than the limit of {_MOST_ROWS} requests.",
    "model_not_found": "The provided model is not supported by the Batch API.",
}


class _Row(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Model(msgspec.Struct):
    model: str = "omni-moderation-latest"


_ROW = msgspec.json.Decoder(_Row)
_MODEL = msgspec.json.Decoder(_Model)


@dataclass(slots=True)
class Checked:
    """What the check of an input file found."""

    rows: int = 0
    tokens: int = 0
    inputs: int = 0
    model: str | None = None
    family: Family | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    def wrong(self, code: str, line: int | None, message: str | None = None) -> None:
        """Notes an error; the service stops listing them at some point."""
        if len(self.errors) < _MOST_ERRORS:
            said = message if message is not None else _SAID[code]
            self.errors.append({"code": code, "message": said, "param": None, "line": line})


def check(lines: Iterable[bytes], url: str, catalogue: Catalogue) -> Checked:
    """Checks every line of an input file and counts its prompt tokens."""
    found = Checked()
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found.rows += 1
        if found.rows > _MOST_ROWS:
            found.wrong("too_many_tasks", None)
            return found
        code = _check_line(line, url, seen, found, catalogue)
        if code is not None:
            found.wrong(code, number)
    if found.rows == 0:
        found.wrong("empty_file", None)
    return found


def _check_line(line: bytes, url: str, seen: set[str], found: Checked, catalogue: Catalogue) -> str | None:
    try:
        line.decode()
        row = _ROW.decode(line)
        model = _MODEL.decode(row.body).model
    except msgspec.ValidationError:
        return "missing_required_parameter"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "invalid_json_line"
    if row.method != "POST":
        return "invalid_method"
    if row.url != url:
        return "url_mismatch"
    if row.custom_id in seen:
        return "duplicate_custom_id"
    seen.add(row.custom_id)
    if found.model is None:
        found.model, found.family = model, catalogue.find(model)
        if found.family is None:
            return "model_not_found"
    if model != found.model:
        return "model_mismatch"
    try:
        ask = ENDPOINTS[url].read(bytes(row.body))
    except Refused:
        return None  # a bad body fails alone, when its turn comes
    found.tokens += ask.prompt_tokens
    found.inputs += ask.inputs
    return None


@dataclass(frozen=True, slots=True)
class Done:
    """One line answered: whether it succeeded, its line of output, and what it is billed."""

    ok: bool
    line: bytes
    usage: dict[str, int]


@dataclass(frozen=True, slots=True)
class Answering:
    """What the lines of one batch are answered with."""

    endpoint: Endpoint
    family: Family
    writer: Writer
    request_id: Callable[[int], str]

    def answer(self, line: bytes, number: int, created: int) -> Done:
        """Answers a line that was checked."""
        row = _ROW.decode(line)
        usage = {"input_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0}
        try:
            ask = self.endpoint.read(bytes(row.body))
            self.endpoint.check(ask, self.family)
        except Refused as refused:
            status, body = refused.problem.status, refused.problem.body()
        else:
            answers = self.endpoint.answers(ask, self.family, self.writer)
            stamp = Stamp(number, created, self.family.answers_as(ask.model))
            status, body = 200, self.endpoint.body(ask, stamp, answers)
            usage["input_tokens"] = ask.prompt_tokens
            usage["output_tokens"] = sum(each.tokens for each in answers)
            usage["reasoning_tokens"] = sum(each.reasoning for each in answers)
        response = {"status_code": status, "request_id": self.request_id(number), "body": _one_line(body)}
        return Done(status == 200, _line(number, row.custom_id, response, None), usage)


def expired(line: bytes, number: int) -> bytes:
    """The line of the error file for a request that was never executed."""
    error = {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }
    return _line(number, _ROW.decode(line).custom_id, None, error)


def _line(number: int, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    row = {"id": f"batch_req_{number:024x}", "custom_id": custom_id, "response": response, "error": error}
    return msgspec.json.encode(row) + b"\n"


def _one_line(body: bytes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.format(body, indent=-1))
