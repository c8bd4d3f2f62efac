"""What the input of a request will be billed, in tokens.

Text is exact for the models whose tokenizer is public: the tokens of every role, name and content, and what the chat
format adds (the vendor's cookbook, "How to count tokens with tiktoken": 3 a message, 1 a name, 3 for the reply).
Function definitions follow the same page's count for tools, carried on into nested schemas, which it leaves out. Models
that reason are billed up to a token less than this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from ratelimit.limits import tokens
from ratelimit.limits.content import Size
from ratelimit.limits.images import image_tokens, picture

PER_MESSAGE = 3
PER_NAME = 1
PRIMING = 3
_ROLE = 1  # every role there is is one token


class ModelFacts(Protocol):
    """What is to be known about a model to judge a request for it."""

    @property
    def name(self) -> str:
        """The family's name, which tells its tokenizer and its price for images."""

    @property
    def context_window(self) -> int | None:
        """Tokens of input and output together, or of one input to embed; None where nobody says."""

    @property
    def max_output(self) -> int | None:
        """The most tokens of output; None where nobody says."""

    @property
    def reasoning(self) -> bool:
        """Whether it reasons before it answers."""


def name_of(size: Size, model: ModelFacts | None) -> str:
    """The name that tells the family: the table's, for the request may use an alias nobody else knows."""
    return model.name if model else size.model


def billed_input(size: Size, model: ModelFacts | None = None) -> int:
    """Tokens of the input as billed: `text_tokens`, and the images."""
    name = name_of(size, model)
    return text_tokens(size, model) + sum(image_tokens(name, *picture(part)) for part in size.pictures)


def text_tokens(size: Size, model: ModelFacts | None = None) -> int:
    """Tokens of the input without its images: content, format, names, calls and tools. Counted once per Size."""
    encoding = tokens.encoding_of(name_of(size, model)) or "o200k_base"
    known = size.counted.get(encoding)
    if known is None:
        known = content_tokens(size, encoding)
        if size.endpoint in {"chat", "responses"}:
            known += _names_and_calls(size.body, encoding) + _tools(size.body, encoding)
        size.counted[encoding] = known
    return known


def content_tokens(size: Size, encoding: tokens.Encoding) -> int:
    """Tokens of the texts and of the format around them: the least that the input can come to."""
    return size.given + framing(size) + sum(tokens.count(text, encoding) for text in size.texts)


def framing(size: Size) -> int:
    """Tokens the chat format adds to the texts."""
    return size.messages * (PER_MESSAGE + _ROLE) + PRIMING if size.endpoint in {"chat", "responses"} else 0


def _names_and_calls(body: Mapping[str, object], encoding: tokens.Encoding) -> int:
    """Names of speakers, and the calls an assistant message repeats. Items of the Responses API have theirs as text."""
    total = 0
    for message in _dicts(body.get("messages")):
        if isinstance(name := message.get("name"), str):
            total += PER_NAME + tokens.count(name, encoding)
        for call in _dicts(message.get("tool_calls")):
            if isinstance(function := call.get("function"), dict):
                total += sum(tokens.count(text, encoding) for text in _strings(function, "name", "arguments"))
    return total


def _tools(body: Mapping[str, object], encoding: tokens.Encoding) -> int:
    """Tokens of function definitions. In the chat body they lie under `function`, in the Responses body they do not."""
    start = 7 if encoding == "o200k_base" else 10
    total = 0
    for tool in (*_dicts(body.get("tools")), *_dicts(body.get("functions"))):
        nested = tool.get("function")
        function = nested if isinstance(nested, dict) else tool
        if isinstance(name := function.get("name"), str):
            line = f"{name}:{_described(function)}"
            total += start + tokens.count(line, encoding) + _schema(function.get("parameters"), encoding)
    return total + 12 if total else 0


def _schema(parameters: object, encoding: tokens.Encoding) -> int:
    """Tokens of all properties of a schema, however deep: a stack, for the depth is not ours to choose."""
    total = 0
    stack = [parameters]
    while stack:
        schema = stack.pop()
        if not isinstance(schema, dict):
            continue
        properties = schema.get("properties")
        if isinstance(properties, dict) and properties:
            total += 3
            for key, value in properties.items():
                of = value if isinstance(value, dict) else {}
                kind = of.get("type")
                line = f"{key}:{kind if isinstance(kind, str) else ''}:{_described(of)}"
                total += 3 + tokens.count(line, encoding)
                if isinstance(choices := of.get("enum"), list):
                    total += -3 + sum(3 + tokens.count(one, encoding) for one in choices if isinstance(one, str))
                stack.append(value)
        stack.append(schema.get("items"))
        for combined in ("anyOf", "allOf", "oneOf"):
            stack.extend(_dicts(schema.get(combined)))
        for defined in ("$defs", "definitions"):
            if isinstance(definitions := schema.get(defined), dict):
                stack.extend(definitions.values())
    return total


def _described(thing: Mapping[str, object]) -> str:
    """A description without its last full stop, which the model does not see."""
    text = thing.get("description")
    return text.removesuffix(".") if isinstance(text, str) else ""


def _dicts(things: object) -> Iterator[dict[str, object]]:
    if isinstance(things, (list, tuple)):
        for thing in things:
            if isinstance(thing, dict):
                yield thing


def _strings(thing: Mapping[str, object], *names: str) -> Iterator[str]:
    for name in names:
        if isinstance(text := thing.get(name), str):
            yield text
