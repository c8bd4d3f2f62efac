"""What the mock answers: text of a drawn length, the question again, or the smallest value that fits a JSON schema.

An answer is a function of the seed and the request's own bytes, so a request sent twice is answered alike, in whatever
order requests arrive. Four bytes of text are one token, here as in the mock's count of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ratelimit.testing.mock.asks import Ask
from ratelimit.testing.mock.spreads import Spread

_WORDS = (
    "the quiet harbour keeps its lamps lit while slow boats come home over grey water and nobody on the long stone "
    "pier says more than a word or two about the weather the price of rope or the names of those still out at sea "
)
_TEXT = _WORDS * 400
_LONG = len(_TEXT) - len(_WORDS)
_MASK = 0xFFFFFFFF


class Answer(msgspec.Struct, frozen=True):
    """One choice: its text, the tokens it is billed as (reasoning included), and why it ended."""

    text: str
    tokens: int
    reasoning: int
    finish: str


class Stamp(msgspec.Struct, frozen=True):
    """What tells one reply from another: its number, the second it was made and the model that answered."""

    number: int
    created: int
    model: str


def mixed(number: int, seed: int) -> int:
    """Thirty-two bits that depend on every bit of both."""
    mixed = (number + seed * 0x9E3779B1) & _MASK
    mixed = ((mixed ^ mixed >> 16) * 0x45D9F3B) & _MASK
    mixed = ((mixed ^ mixed >> 16) * 0x45D9F3B) & _MASK
    return mixed ^ mixed >> 16


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes answers: how long, how much thinking before, and whether to repeat the question."""

    seed: int
    output_tokens: Spread
    reasoning_tokens: Spread
    echo: bool

    def write(self, ask: Ask, *, reasoning: bool) -> list[Answer]:
        """One answer for each choice asked for."""
        return [self._one(ask, mixed(ask.seed + index, self.seed), reasoning) for index in range(ask.choices)]

    def _one(self, ask: Ask, drawn: int, reasoning: bool) -> Answer:
        thought = self.reasoning_tokens.whole(mixed(drawn, 1) / (_MASK + 1)) if reasoning else 0
        if ask.schema is not None or ask.json_mode:
            text = msgspec.json.encode(conforming(ask.schema or {}, ask.schema or {}, drawn)).decode()
        elif self.echo:
            text = ask.last
        else:
            wanted = self.output_tokens.whole(drawn / (_MASK + 1)) or 1
            if ask.cap is None or wanted + thought <= ask.cap:
                return Answer(_prose(drawn, 4 * wanted), wanted + thought, thought, "stop")
            text = _prose(drawn, 4 * wanted)
        tokens = thought - (-len(text.encode()) // 4)
        if ask.cap is None or tokens <= ask.cap:
            return Answer(text, tokens, thought, "stop")
        thought = min(thought, ask.cap)
        left = 4 * (ask.cap - thought)
        return Answer(text.encode()[:left].decode(errors="ignore"), ask.cap, thought, "length")


def _prose(drawn: int, length: int) -> str:
    """Text of so many bytes, begun where `drawn` says."""
    start = drawn % len(_WORDS)
    return (_TEXT if length < _LONG else _TEXT * (length // _LONG + 1))[start : start + length]


def conforming(schema: dict[str, Any], root: dict[str, Any], drawn: int, depth: int = 0) -> Any:
    """A value that a simple schema accepts: objects, arrays, enums, constants, references, ranges of numbers."""
    if depth > 32:  # a schema that needs more refers to itself
        return None
    if "$ref" in schema:
        return conforming(_referred(schema["$ref"], root), root, drawn, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][drawn % len(schema["enum"])]
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return conforming(schema[several][0], root, drawn, depth + 1)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return {
            name: conforming(each, root, mixed(drawn, place), depth + 1)
            for place, (name, each) in enumerate(schema.get("properties", {}).items())
            if isinstance(each, dict) and (depth < 16 or name in schema.get("required", ()))
        }
    if kind == "array":
        items = schema.get("items", {})
        return [conforming(items, root, mixed(drawn, n), depth + 1) for n in range(_array_length(schema, depth))]
    return _scalar(kind, schema, drawn)


def _array_length(schema: dict[str, Any], depth: int) -> int:
    least = int(schema.get("minItems", 0))
    return max(least, min(1, int(schema.get("maxItems", 1)))) if depth < 16 else least


def _referred(pointer: str, root: dict[str, Any]) -> dict[str, Any]:
    found: Any = root
    for step in pointer.removeprefix("#").strip("/").split("/"):
        found = found.get(step, {}) if step and isinstance(found, dict) else found
    return found if isinstance(found, dict) else {}


def _scalar(kind: object, schema: dict[str, Any], drawn: int) -> Any:
    if kind == "string":
        length = max(int(schema.get("minLength", 0)), min(12, int(schema.get("maxLength", 12))))
        return _prose(drawn, length)
    if kind in ("integer", "number"):
        return _number(schema, drawn)
    return drawn % 2 == 0 if kind == "boolean" else None


def _number(schema: dict[str, Any], drawn: int) -> int:
    step = int(schema.get("multipleOf", 1)) or 1
    low = int(schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1))
    high = int(schema.get("maximum", schema.get("exclusiveMaximum", low + 101) - 1))
    first = -(-low // step) * step
    return first + drawn % max((high - first) // step + 1, 1) * step
