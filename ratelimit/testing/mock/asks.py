"""Request bodies read once, into one plain value that charging and answering share.

A body is decoded straight into typed structs; only a body that does not fit is looked at a second time, by
`complaints`, to say what is wrong in the service's words.
"""

from __future__ import annotations

import binascii
import re
from typing import Any, TypeVar

import msgspec

from ratelimit.testing.mock.complaints import complain


class Ask(msgspec.Struct):
    """What a request asks for, whatever its endpoint."""

    model: str
    raw: bytes
    text_bytes: int = 0
    text_chars: int = 0
    messages: int = 0
    choices: int = 1
    cap: int | None = None
    cap_name: str = "max_tokens"
    images: int = 0
    bad_image: str | None = None
    function_tools: bool = False
    stream: bool = False
    include_usage: bool = False
    obfuscate: bool = True
    last: str = ""
    schema: dict[str, Any] | None = None
    json_mode: bool = False
    custom_id: str | None = None
    inputs: int = 0
    base64: bool = False
    dimensions: int | None = None
    body: dict[str, Any] | None = None

    @property
    def prompt_tokens(self) -> int:
        """The mock's own count: four bytes a token, three a message, three to prime the answer."""
        return -(-self.text_bytes // 4) + (3 * self.messages + 3 if self.messages else 0)

    @property
    def seed(self) -> int:
        """The same body gives the same number, and with it the same answer."""
        return binascii.crc32(self.raw)

    def read_text(self, text: str) -> None:
        """Counts a piece of text as the service does: in UTF-8 bytes."""
        self.text_chars += len(text)
        self.text_bytes += len(text) if text.isascii() else len(text.encode())

    def see_image(self, url: str) -> None:
        """Counts an image and remembers the first that could not be loaded."""
        self.images += 1
        scheme, _, rest = url.partition("://")
        host = re.split("[/:?#]", rest, maxsplit=1)[0] if scheme in {"http", "https"} else ""
        # The top level domain `invalid` is reserved for names that never resolve.
        if not url.startswith("data:image/") and (not host or host.endswith(".invalid")):
            self.bad_image = self.bad_image or url


class _Part(msgspec.Struct):
    type: str = "text"
    text: str | None = None
    image_url: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _ChatBody(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None


class _CompletionBody(msgspec.Struct):
    model: str
    prompt: str | list[Any] = ""
    max_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    metadata: dict[str, Any] | None = None


class _ResponsesBody(msgspec.Struct):
    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    text: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    metadata: dict[str, Any] | None = None


class _EmbeddingsBody(msgspec.Struct):
    model: str
    input: str | list[Any]
    encoding_format: str | None = None
    dimensions: int | None = None


class _ModerationsBody(msgspec.Struct):
    input: str | list[Any]
    model: str = "omni-moderation-latest"


_CHAT = msgspec.json.Decoder(_ChatBody)
_COMPLETION = msgspec.json.Decoder(_CompletionBody)
_RESPONSES = msgspec.json.Decoder(_ResponsesBody)
_EMBEDDINGS = msgspec.json.Decoder(_EmbeddingsBody)
_MODERATIONS = msgspec.json.Decoder(_ModerationsBody)


_T = TypeVar("_T")


def _decode(decoder: msgspec.json.Decoder[_T], raw: bytes, endpoint: str) -> _T:
    """Decodes, or raises Refused with what the service would say."""
    try:
        raw.decode()  # text that is skipped while decoding is not looked at there
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise complain(raw, endpoint) from None


def _custom_id(metadata: dict[str, Any] | None) -> str | None:
    found = metadata.get("custom_id") if metadata else None
    return found if isinstance(found, str) else None


def _read_parts(ask: Ask, content: str | list[_Part] | None) -> None:
    if content is None:
        return
    if isinstance(content, str):
        ask.read_text(content)
        ask.last = content
        return
    for part in content:
        if part.text is not None:
            ask.read_text(part.text)
            ask.last = part.text
        if part.type == "image_url":
            ask.see_image(str((part.image_url or {}).get("url", "")))


def _read_format(ask: Ask, form: dict[str, Any] | None) -> None:
    """Takes a JSON schema from `response_format`, or from the flatter `text.format` of responses."""
    if not form:
        return
    kind = form.get("type")
    if kind == "json_object":
        ask.json_mode = True
    elif kind == "json_schema":
        holder = form.get("json_schema", form)
        schema = holder.get("schema") if isinstance(holder, dict) else None
        ask.schema = schema if isinstance(schema, dict) else {}


def chat(raw: bytes) -> Ask:
    """Reads a chat completion's body."""
    body = _decode(_CHAT, raw, "chat")
    if not body.messages or (body.n is not None and body.n < 1):
        raise complain(raw, "chat")
    ask = Ask(body.model, raw, messages=len(body.messages), choices=body.n or 1, stream=body.stream or False)
    for message in body.messages:
        _read_parts(ask, message.content)
    if body.max_completion_tokens is not None:
        ask.cap, ask.cap_name = body.max_completion_tokens, "max_completion_tokens"
    else:
        ask.cap = body.max_tokens
    if ask.cap is not None and ask.cap < 1:
        raise complain(raw, "chat")
    ask.function_tools = bool(body.tools)
    _read_stream_options(ask, body.stream_options)
    _read_format(ask, body.response_format)
    ask.custom_id = _custom_id(body.metadata)
    return ask


def _read_stream_options(ask: Ask, options: _StreamOptions | None) -> None:
    if options is not None:
        ask.include_usage = bool(options.include_usage)
        ask.obfuscate = options.include_obfuscation is not False


def completion(raw: bytes) -> Ask:
    """Reads a legacy completion's body; each prompt gets its own choices."""
    body = _decode(_COMPLETION, raw, "completions")
    if (body.n is not None and body.n < 1) or (body.max_tokens is not None and body.max_tokens < 0):
        raise complain(raw, "completions")
    ask = Ask(body.model, raw, choices=body.n or 1, cap=body.max_tokens, stream=body.stream or False)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not _of_one_kind(prompts):
        raise complain(raw, "completions")
    _read_inputs(ask, prompts)
    ask.choices *= ask.inputs
    ask.custom_id = _custom_id(body.metadata)
    return ask


def _of_one_kind(inputs: list[Any]) -> bool:
    """Whether these are all strings, all token numbers, or all lists of token numbers."""
    kinds = {type(each) for each in inputs}
    return kinds in ({str}, {int}) or (kinds == {list} and all(type(n) is int for each in inputs for n in each))


def _read_inputs(ask: Ask, inputs: list[Any]) -> None:
    """Counts strings by their bytes and lists of token numbers as four bytes each."""
    if inputs and isinstance(inputs[0], int):
        inputs = [inputs]
    ask.inputs = len(inputs)
    for each in inputs:
        if isinstance(each, str):
            ask.read_text(each)
            ask.last = each
        else:
            ask.text_bytes += 4 * len(each)
            ask.text_chars += 4 * len(each)


def responses(raw: bytes) -> Ask:
    """Reads a response's body: text wherever an input item carries it."""
    body = _decode(_RESPONSES, raw, "responses")
    if body.max_output_tokens is not None and body.max_output_tokens < 1:
        raise complain(raw, "responses")
    ask = Ask(body.model, raw, cap=body.max_output_tokens, cap_name="max_output_tokens", stream=body.stream or False)
    if body.instructions is not None:
        ask.messages += 1
        ask.read_text(body.instructions)
    if isinstance(body.input, str):
        ask.messages += 1
        ask.read_text(body.input)
        ask.last = body.input
    else:
        for item in body.input:
            _read_item(ask, item)
    ask.function_tools = any(tool.get("type") == "function" for tool in body.tools or ())
    _read_stream_options(ask, body.stream_options)
    form = (body.text or {}).get("format")
    _read_format(ask, form if isinstance(form, dict) else None)
    ask.custom_id = _custom_id(body.metadata)
    ask.body = {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "tools": body.tools or [],
        "text": body.text or {},
    }
    return ask


def _read_item(ask: Ask, item: dict[str, Any]) -> None:
    ask.messages += 1
    content = item.get("content", item.get("output"))
    parts = content if isinstance(content, list) else [{"text": content}]
    for part in parts:
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("text"), str):
            ask.read_text(part["text"])
            ask.last = part["text"]
        if part.get("type") == "input_image":
            ask.see_image(str(part.get("image_url", "")))


def embeddings(raw: bytes) -> Ask:
    """Reads an embedding's body: at most 2,048 inputs, none of them empty."""
    body = _decode(_EMBEDDINGS, raw, "embeddings")
    inputs: list[Any] = [body.input] if isinstance(body.input, str) else list(body.input)
    if (
        not inputs
        or len(inputs) > 2048  # the service's own cap
        or not _of_one_kind(inputs)
        or any(each in ("", []) for each in inputs)
        or body.encoding_format not in (None, "float", "base64")
        or (body.dimensions is not None and body.dimensions < 1)
    ):
        raise complain(raw, "embeddings")
    ask = Ask(body.model, raw, base64=body.encoding_format == "base64", dimensions=body.dimensions)
    _read_inputs(ask, inputs)
    return ask


def moderation(raw: bytes) -> Ask:
    """Reads a moderation's body; parts that are not text count as an input without words."""
    body = _decode(_MODERATIONS, raw, "moderations")
    inputs = [body.input] if isinstance(body.input, str) else body.input
    kinds = {type(each) for each in inputs}
    if kinds not in ({str}, {dict}):
        raise complain(raw, "moderations")
    ask = Ask(body.model, raw)
    _read_inputs(ask, [each if isinstance(each, str) else str(each.get("text", "")) for each in inputs])
    return ask
