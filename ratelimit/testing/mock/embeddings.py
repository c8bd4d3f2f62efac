"""Embeddings and moderations as the service writes them.

A vector is a stretch of one fixed sequence of signs, begun where the text's checksum says: equal texts have equal
vectors, every vector has length one, and thousands of them cost next to nothing.
"""

from __future__ import annotations

import base64
import binascii
import random
import struct
from array import array
from collections.abc import Iterable
from typing import Any

import msgspec

from ratelimit.testing.mock.answers import Answer, Stamp
from ratelimit.testing.mock.asks import Ask

_SIZES = {"text-embedding-3-large": 3072}
_SMALL = 1536
_SIGNS = array("b", random.Random(0).choices((-1, 1), k=65_536 + 4096))
_MOST_DIMENSIONS = 4096

_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "sexual",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm/intent",
    "self-harm/instructions",
    "self-harm",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def _inputs(ask: Ask) -> Iterable[bytes]:
    given = msgspec.json.decode(ask.raw)["input"]
    if isinstance(given, str) or isinstance(given[0], int):
        given = [given]
    return (msgspec.json.encode(each) for each in given)


def vector(text: bytes, size: int) -> list[float]:
    """The vector of a text: of length one, the same for the same text."""
    start = binascii.crc32(text) & 0xFFFF
    scale = struct.unpack("<f", struct.pack("<f", size**-0.5))[0]
    return [sign * scale for sign in _SIGNS[start : start + size]]


def embeddings_body(ask: Ask, stamp: Stamp, _: list[Answer]) -> bytes:
    """The body of an embeddings reply, in numbers or in base64 of little-endian floats."""
    size = min(ask.dimensions or _SIZES.get(stamp.model, _SMALL), _MOST_DIMENSIONS)
    data = []
    for index, text in enumerate(_inputs(ask)):
        numbers = vector(text, size)
        shown: Any = base64.b64encode(struct.pack(f"<{size}f", *numbers)).decode() if ask.base64 else numbers
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = max(ask.prompt_tokens, 1)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": stamp.model, "usage": usage}) + b"\n"


def moderations_body(ask: Ask, stamp: Stamp, _: list[Answer]) -> bytes:
    """The body of a moderation: an input is flagged as violence if it says so."""
    given = msgspec.json.decode(ask.raw)["input"]
    texts = given if isinstance(given, list) and given and isinstance(given[0], str) else [given]
    results = []
    for text in texts:
        flagged = "violence" in msgspec.json.encode(text).decode().lower()
        results.append(
            {
                "flagged": flagged,
                "categories": {each: flagged and each == "violence" for each in _CATEGORIES},
                "category_scores": {each: 0.9 if flagged and each == "violence" else 0.001 for each in _CATEGORIES},
                "category_applied_input_types": {each: ["text"] for each in _CATEGORIES},
            }
        )
    return msgspec.json.encode({"id": f"modr-{stamp.number:032x}", "model": stamp.model, "results": results}) + b"\n"
