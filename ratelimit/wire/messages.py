"""What goes out and what comes back.

A request keeps the bytes it came as: the bytes of a line in a file are the bytes of the POST. They are parsed once, to
see that they are what the service will understand and to size them up. A reply keeps its bytes too, and decodes no more
of them than somebody asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ratelimit.errors import RequestInvalid
from ratelimit.limits.content import CHAT_PATH
from ratelimit.wire.lenient import strictly

_SHOWN = 80
_ABSURD = 1e9  # tokens; no request has had a thousandth of it, and settling one would close a lane for days
_decode = msgspec.json.Decoder()


class Names(msgspec.Struct, frozen=True):
    """By what names a reply and the model that made it go."""

    id: str | None = None
    model: str | None = None


class Usage(msgspec.Struct, frozen=True):
    """What a reply says it cost, in whichever of the two vocabularies."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None

    @property
    def input(self) -> int:
        """Tokens that went in."""
        return _tokens(self.prompt_tokens or self.input_tokens)

    @property
    def output(self) -> int:
        """Tokens that came out."""
        return _tokens(self.completion_tokens or self.output_tokens)


def _tokens(count: float | None) -> int:
    return int(count) if count is not None and 0 < count < _ABSURD else 0


class Trouble(msgspec.Struct, frozen=True):
    """The `error` of a reply."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    param: Any = None

    def __bool__(self) -> bool:
        return bool(self.message or self.code or self.type)


class _Envelope(msgspec.Struct, frozen=True):
    """The parts of a reply that decide what happens next; decoding it checks the syntax of all the rest."""

    error: Trouble | str | None = None
    usage: Usage | None = None


_envelope = msgspec.json.Decoder(_Envelope)


def trouble_of(error: Any) -> Trouble | None:
    """Return what an `error` of any shape says; None where it says nothing."""
    if isinstance(error, str):
        return Trouble(error) if error else None
    if not isinstance(error, dict):
        return None
    message, kind, code = error.get("message"), error.get("type"), error.get("code")
    if not isinstance(code, str | int) or isinstance(code, bool):
        code = str(code) if code else None
    found = Trouble(_text(message), _text(kind), code, error.get("param"))
    return found or None


def usage_of(usage: Any) -> Usage | None:
    """Return what a `usage` of any shape says; None where it says nothing."""
    if not isinstance(usage, dict):
        return None
    counts = {name: usage.get(name) for name in Usage.__struct_fields__}
    return Usage(**{name: n for name, n in counts.items() if type(n) in {int, float}})


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else msgspec.json.encode(value).decode()


@dataclass(frozen=True, slots=True)
class Request:
    """One request, checked and ready to be sent."""

    body: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False, compare=False)
    path: str = CHAT_PATH
    id: str = ""

    @property
    def model(self) -> str:
        """The model it names."""
        return str(self.fields["model"])

    @property
    def stream(self) -> bool:
        """Whether it asks for a stream."""
        return self.fields.get("stream") is True


def request(body: bytes | str | Mapping[str, Any], path: str = CHAT_PATH, *, identifier: str = "") -> Request:
    """Return a checked request; raises `RequestInvalid` for what the service could not understand."""
    if isinstance(body, dict):
        raw = _encode(body)
        fields: Any = body
    else:
        raw = _raw(body)
        fields = parse(raw)
    if not isinstance(fields, dict):
        raise RequestInvalid(f"the body is a {_kind(fields)}", "a request is a JSON object with a model")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise RequestInvalid(
            "the body names no model" if model is None else f"the model is {model!r:.{_SHOWN}}",
            'add "model": "gpt-4o-mini" or another model\'s name',
        )
    if not path.startswith("/"):
        raise RequestInvalid(f"the path is {path!r:.{_SHOWN}}", f"a path begins with a slash, as in {CHAT_PATH}")
    return Request(raw, fields, path, identifier)


def parse(raw: bytes, what: str = "body", remedy: str = "a request is one JSON object") -> Any:
    """Return what JSON bytes mean; raises `RequestInvalid` for what is not JSON, NaN and Infinity included."""
    try:
        return _decode.decode(raw)
    except UnicodeDecodeError:
        raise RequestInvalid(f"the {what} is not UTF-8 at byte {_not_utf8(raw)}", "save it as UTF-8") from None
    except RecursionError:
        raise RequestInvalid(f"the {what} is nested too deeply", "no request needs more than a few levels") from None
    except msgspec.DecodeError as error:
        raise RequestInvalid(f"the {what} is not JSON: {error}", remedy) from None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request.

    >>> Reply(200, {"x-request-id": "req-1"}, b'{"choices": [{"message": {"content": "Hi!"}}]}').text
    'Hi!'
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def request_id(self) -> str | None:
        """The service's own name for this exchange."""
        return self.headers.get("x-request-id")

    def json(self) -> Any:
        """Return the body decoded."""
        try:
            return _decode.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if (nearly := strictly(self.body)) is None:
                raise
            return _decode.decode(nearly)

    def envelope(self) -> tuple[Trouble | None, Usage | None] | None:
        """Return error and usage, or None if the body is not one whole JSON object."""
        try:
            found = _envelope.decode(self.body)
        except msgspec.ValidationError:
            return self._odd_envelope()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._odd_envelope()
        error = found.error
        return (Trouble(error) if isinstance(error, str) else error) or None, found.usage

    def _odd_envelope(self) -> tuple[Trouble | None, Usage | None] | None:
        """Read what is not quite JSON, or of the documented shape: an answer that was paid for is not thrown away."""
        try:
            body = self.json()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if isinstance(body, list) and len(body) == 1:  # how one vendor wraps its errors
            body = body[0] if isinstance(body[0], dict) and "error" in body[0] else None
        return (trouble_of(body.get("error")), usage_of(body.get("usage"))) if isinstance(body, dict) else None

    @property
    def text(self) -> str:
        """The first answer's text, whichever endpoint it came from; empty where there is none."""
        return "".join(_texts(self.json()))


def _texts(body: Any) -> Iterator[str]:
    if not isinstance(body, dict):
        return
    for choice in _dicts(body.get("choices")):
        message = choice.get("message")
        found = message.get("content") if isinstance(message, dict) else choice.get("text")
        if isinstance(found, str):
            yield found
            return
    for item in _dicts(body.get("output")):
        for part in _dicts(item.get("content")):
            if part.get("type") == "output_text" and isinstance(part.get("text"), str):
                yield part["text"]


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _raw(body: Any) -> bytes:
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError as error:
            raise RequestInvalid(
                f"the body cannot be written as UTF-8 at character {error.start}", "leave out half surrogate pairs"
            ) from None
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    if isinstance(body, Mapping):
        return _encode(dict(body))
    raise RequestInvalid(f"the body is of type {type(body).__name__}", "give a dict, or JSON as bytes or text")


def _not_utf8(raw: bytes) -> int:
    """Return the first byte that is not UTF-8, counted from the start and not from that of its string."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _encode(body: dict[str, Any]) -> bytes:
    try:
        raw = msgspec.json.encode(body)
    except RecursionError:
        raise RequestInvalid("the body is nested too deeply", "no request needs more than a few levels") from None
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise RequestInvalid(
            f"the body cannot be written as JSON: {error}", "use plain dicts, lists and values"
        ) from None
    if b"null" in raw and (where := _not_a_number(body)):  # it writes NaN as null, and so would lie
        raise RequestInvalid(f"{where} is not a finite number", "JSON has no NaN or Infinity; leave it out")
    return raw


def _not_a_number(body: dict[str, Any]) -> str | None:
    """Return where a body holds a number that JSON cannot write; whatever its depth."""
    stack: list[tuple[str, Any]] = [("body", body)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return where
        if isinstance(value, Mapping):
            stack += [(f"{where}[{key!r}]", item) for key, item in reversed(list(value.items()))]
        elif isinstance(value, list | tuple):
            stack += [(f"{where}[{index}]", value[index]) for index in reversed(range(len(value)))]
    return None


def _kind(value: Any) -> str:
    return {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}.get(type(value), "null")
