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

_SHOWN = 80
_decode = msgspec.json.Decoder()


class Usage(msgspec.Struct, frozen=True):
    """What a reply says it cost, in whichever of the two vocabularies."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None

    @property
    def input(self) -> int:
        """Tokens that went in."""
        return int(self.prompt_tokens or self.input_tokens or 0)

    @property
    def output(self) -> int:
        """Tokens that came out."""
        return int(self.completion_tokens or self.output_tokens or 0)


class Trouble(msgspec.Struct, frozen=True):
    """The `error` of a reply."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    param: Any = None


class _Envelope(msgspec.Struct, frozen=True):
    """The parts of a reply that decide what happens next; decoding it checks the syntax of all the rest."""

    error: Trouble | str | None = None
    usage: Usage | None = None


_envelope = msgspec.json.Decoder(_Envelope)


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
    if isinstance(body, Mapping):
        raw = _encode(body)
        fields: Any = body
    else:
        raw = body.encode() if isinstance(body, str) else body
        fields = parse(raw)
    if not isinstance(fields, Mapping):
        raise RequestInvalid(f"the body is a {_kind(fields)}", "a request is a JSON object with a model")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise RequestInvalid(
            "the body names no model" if model is None else f"the model is {model!r:.{_SHOWN}}",
            'add "model": "gpt-4o-mini" or another model\'s name',
        )
    return Request(raw, fields, path, identifier)


def parse(raw: bytes) -> Any:
    """Return what JSON bytes mean; raises `RequestInvalid` for what is not JSON, NaN and Infinity included."""
    try:
        return _decode.decode(raw)
    except UnicodeDecodeError as error:
        raise RequestInvalid(f"the body is not UTF-8 at byte {error.start}", "save it as UTF-8") from None
    except RecursionError:
        raise RequestInvalid("the body is nested too deeply", "no request needs more than a few levels") from None
    except msgspec.DecodeError as error:
        raise RequestInvalid(f"the body is not JSON: {error}", "a request is one JSON object") from None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def request_id(self) -> str | None:
        """The service's own name for this exchange."""
        return self.headers.get("x-request-id")

    def json(self) -> Any:
        """Return the body decoded."""
        return _decode.decode(self.body)

    def envelope(self) -> tuple[Trouble | None, Usage | None] | None:
        """Return error and usage, or None if the body is not one whole JSON object."""
        try:
            found = _envelope.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        error = Trouble(found.error) if isinstance(found.error, str) else found.error
        return error, found.usage

    @property
    def text(self) -> str:
        """The first answer's text, whichever endpoint it came from; empty where there is none."""
        return "".join(_texts(self.json()))


def _texts(body: Any) -> Iterator[str]:
    if not isinstance(body, dict):
        return
    for choice in body.get("choices") or ():
        found = (choice.get("message") or {}).get("content") or choice.get("text")
        if isinstance(found, str):
            yield found
            return
    for item in body.get("output") or ():
        for part in item.get("content") or ():
            if part.get("type") == "output_text":
                yield part["text"]


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        raw = msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise RequestInvalid(
            f"the body cannot be written as JSON: {error}", "use plain dicts, lists and values"
        ) from None
    if b"null" in raw and (where := _not_a_number(body, "body")):  # it writes NaN as null, and so would lie
        raise RequestInvalid(f"{where} is not a finite number", "JSON has no NaN or Infinity; leave it out")
    return raw


def _not_a_number(value: Any, where: str) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return where
    inside: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        inside = iter(value.items())
    elif isinstance(value, (list, tuple)):
        inside = iter(enumerate(value))
    return next((found for key, item in inside if (found := _not_a_number(item, f"{where}[{key!r}]"))), None)


def _kind(value: Any) -> str:
    return {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}.get(type(value), "null")
