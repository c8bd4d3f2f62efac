"""What one walk over a request's body finds: its Size. Everything else about charges is arithmetic on that.

Bodies come from files and from other people's code, so nothing here trusts them. What is not of the shape the endpoint
documents counts as absent, and the server may say what it thinks of it. The walk goes as deep as the documented shapes
do and no deeper, so no nesting can exhaust the stack. It runs once per request, at thousands per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

Endpoint = Literal["chat", "responses", "embeddings", "completions", "moderations", "other"]

CHAT_PATH = "/v1/chat/completions"

# Looked for in this order: the path of completions is the end of the path of chat completions.
_PATHS: tuple[tuple[str, Endpoint], ...] = (
    ("/chat/completions", "chat"),
    ("/responses", "responses"),
    ("/embeddings", "embeddings"),
    ("/completions", "completions"),
    ("/moderations", "moderations"),
)
_CAPS: dict[Endpoint, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "responses": ("max_output_tokens",),
    "completions": ("max_tokens",),
    "embeddings": (),
    "moderations": (),
    "other": ("max_completion_tokens", "max_output_tokens", "max_tokens"),
}
# Beyond any limit there is; below it products still fit a float and print in full.
_LARGEST = 10**12


@dataclass(slots=True)  # to freeze so many fields would cost as much as the walk itself
class Size:
    """What a request's body amounts to; nobody changes it. `utf8_bytes` are those of all `texts` together.

    `given` counts tokens that came as integers instead of text. `unseen` says that the server will add input that the
    body does not show (an earlier response, a stored prompt, a file, sound), so every count here is a lower bound.
    """

    endpoint: Endpoint
    model: str = ""
    utf8_bytes: int = 0
    messages: int = 0
    images: int = 0
    choices: int = 1
    cap: int | None = None
    function_tools: bool = False
    inputs: int = 0
    given: int = 0
    stream: bool = False
    unseen: bool = False
    texts: tuple[str, ...] = field(default=(), repr=False)
    pictures: tuple[Mapping[str, object], ...] = field(default=(), repr=False)
    body: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)
    counted: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)  # filled by `billed`


class _Found:
    """What the walk has gathered so far."""

    __slots__ = ("function_tools", "given", "inputs", "messages", "pictures", "texts", "unseen")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.pictures: list[Mapping[str, object]] = []
        self.messages = 0
        self.inputs = 0
        self.given = 0
        self.function_tools = False
        self.unseen = False


def measure(body: object, path: str = CHAT_PATH) -> Size:
    """The size of a request to `path`. Never raises, whatever the body; keeps the body, which must then not change."""
    fields: Mapping[str, object] = body if isinstance(body, (dict, Mapping)) else {}
    endpoint = endpoint_of(path)
    found = _Found()
    choices = 1 if (n := fields.get("n")) is None else _whole(n) or 1
    if endpoint == "chat":
        _messages(fields.get("messages"), found)
        _tools(fields, found)
    elif endpoint == "responses":
        _responses(fields, found)
        _tools(fields, found)
        choices = 1
    elif endpoint == "completions":
        _inputs(fields.get("prompt"), found)
        choices = max(choices, _whole(fields.get("best_of")) or 1) * max(found.inputs, 1)
    elif endpoint == "other":
        _messages(fields.get("messages"), found)
        _inputs(fields.get("input"), found)
        _inputs(fields.get("prompt"), found)
    else:
        _inputs(fields.get("input"), found)
        choices = 1
    texts = tuple(found.texts)
    model = fields.get("model")
    cap: int | None = None
    for name in _CAPS[endpoint]:
        if (stated := _whole(fields.get(name))) and (cap is None or stated > cap):
            cap = stated
    return Size(  # by position: names would cost as much as the walk
        endpoint,
        model if isinstance(model, str) else "",
        sum(map(utf8_length, texts)),
        found.messages,
        len(found.pictures),
        choices,
        cap,
        found.function_tools,
        found.inputs,
        found.given,
        fields.get("stream") is True,
        found.unseen,
        texts,
        tuple(found.pictures),
        fields,
    )


@lru_cache(maxsize=256)
def endpoint_of(path: str) -> Endpoint:
    """The endpoint a path or URL belongs to, whatever stands before it."""
    plain = path.partition("?")[0].rstrip("/")
    for ending, endpoint in _PATHS:
        if plain.endswith(ending):
            return endpoint
    return "other"


def utf8_length(text: str) -> int:
    """Bytes of `text` in UTF-8; half a surrogate pair, which JSON can carry, counts three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _whole(value: object) -> int | None:
    """A positive integer, bounded; anything else, True included, is nothing."""
    return min(value, _LARGEST) if type(value) is int and value > 0 else None


def _messages(messages: object, found: _Found) -> None:
    if not isinstance(messages, (list, tuple)):
        return
    for message in messages:
        if isinstance(message, dict):
            found.messages += 1
            content = message.get("content")
            if isinstance(content, str):
                found.texts.append(content)
            else:
                _parts(content, found)


def _parts(content: object, found: _Found) -> None:
    if not isinstance(content, (list, tuple)):
        return
    for part in content:
        if isinstance(part, dict):
            _part(part, found)


def _part(part: dict[str, object], found: _Found) -> None:
    """Takes one part; a part of an unknown type counts by the text it has."""
    kind = part.get("type")
    if kind in ("image_url", "input_image", "computer_screenshot"):
        found.pictures.append(part)
    elif kind in ("input_audio", "file", "input_file"):
        found.unseen = True
    elif isinstance(text := part.get("text"), str) or isinstance(text := part.get("refusal"), str):
        found.texts.append(text)


def _responses(fields: Mapping[str, object], found: _Found) -> None:
    if isinstance(instructions := fields.get("instructions"), str):
        found.messages += 1
        found.texts.append(instructions)
    given = fields.get("input")
    if isinstance(given, str):
        found.messages += 1
        found.texts.append(given)
    elif isinstance(given, (list, tuple)):
        for item in given:
            if isinstance(item, dict):
                _item(item, found)
    if any(fields.get(name) for name in ("previous_response_id", "conversation", "prompt")):
        found.unseen = True


def _item(item: dict[str, object], found: _Found) -> None:
    """Takes one input item: a message, a call the model made, or what came of it."""
    found.messages += 1
    if item.get("type") in ("item_reference", "reasoning"):
        found.unseen = True
    for name in ("content", "name", "arguments", "output"):
        value = item.get(name)
        if isinstance(value, str):
            found.texts.append(value)
        elif isinstance(value, dict):
            _part(value, found)
        else:
            _parts(value, found)


def _tools(fields: Mapping[str, object], found: _Found) -> None:
    tools = fields.get("tools")
    if isinstance(tools, (list, tuple)):
        # A custom tool is rendered for the model as a function is; hosted tools are not.
        found.function_tools = any(isinstance(t, dict) and t.get("type") in ("function", "custom") for t in tools)
    functions = fields.get("functions")
    if isinstance(functions, (list, tuple)):
        found.function_tools = found.function_tools or any(isinstance(f, dict) for f in functions)


def _inputs(given: object, found: _Found) -> None:
    """Takes a text, a list of texts or parts, a list of tokens, or a list of lists of tokens."""
    if isinstance(given, str):
        found.inputs += 1
        found.texts.append(given)
        return
    if not isinstance(given, (list, tuple)):
        return
    flat = 0
    for one in given:
        if isinstance(one, str):
            found.inputs += 1
            found.texts.append(one)
        elif type(one) is int:
            flat += 1
        elif isinstance(one, (list, tuple)):
            found.inputs += 1
            found.given += sum(type(token) is int for token in one)
        elif isinstance(one, dict):
            found.inputs += 1
            _part(one, found)
    found.given += flat
    found.inputs += flat > 0
