"""Exact token counts, offline.

The vocabularies lie inside the wheel of `bpe_openai`, so nothing is downloaded; they cost about 150 MB and half a
second, so they load with the first count and not with this module. Whoever must not stall later, an event loop say,
calls `load` earlier, in a thread. This is the only module that knows the library.

A byte-level tokenizer never makes more tokens than a text has UTF-8 bytes. Most questions are answered by that bound
and never get here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, cast

Encoding = Literal["o200k_base", "cl100k_base"]

# Which family is counted how: as tiktoken/model.py has it, and families newer than that like their forerunners. A name
# stands before any other that it begins with.
_FAMILIES: tuple[tuple[str, Encoding], ...] = (
    ("chatgpt-4o", "o200k_base"),
    ("chat-latest", "o200k_base"),
    ("codex-", "o200k_base"),
    ("gpt-4.1", "o200k_base"),
    ("gpt-4.5", "o200k_base"),
    ("gpt-4o", "o200k_base"),
    ("gpt-oss", "o200k_base"),
    ("gpt-5", "o200k_base"),
    ("gpt-6", "o200k_base"),
    ("o1", "o200k_base"),
    ("o3", "o200k_base"),
    ("o4", "o200k_base"),
    ("text-embedding-3", "cl100k_base"),
    ("text-embedding-ada-002", "cl100k_base"),
    ("gpt-3.5", "cl100k_base"),
    ("gpt-35", "cl100k_base"),
    ("gpt-4", "cl100k_base"),
    ("davinci-002", "cl100k_base"),
    ("babbage-002", "cl100k_base"),
)

# The library refuses a text of a million characters, or of 200,000 tokens. A character has at most four bytes.
_PIECE = 50_000
# No token of either vocabulary runs from a letter into a space before a letter, so a cut there changes no count.
_SEAM = re.compile(r"[A-Za-z](?= [A-Za-z])")
_LOOKBACK = 1_000


@lru_cache(maxsize=256)
def encoding_of(model: str) -> Encoding | None:
    """The encoding of a model, a snapshot or a fine-tune of it; None for a family nobody here knows."""
    name = model.removeprefix("ft:")
    for family, encoding in _FAMILIES:
        if name.startswith(family):
            return encoding
    return None


def count(text: str, encoding: Encoding) -> int:
    """The number of tokens of `text`, taken as plain text even where it spells a control token."""
    encode = load(encoding)
    if len(text) <= _PIECE:
        return len(encode(text))
    return sum(len(encode(piece)) for piece in _pieces(text))


@lru_cache(maxsize=2)
def load(encoding: Encoding) -> Callable[[str], list[int]]:
    """The encoder itself; slow once, then at hand."""
    with warnings.catch_warnings():
        # bpe_openai 0.1.4 opens its data with a function that Python 3.11 and 3.12 call deprecated and 3.13 kept.
        warnings.simplefilter("ignore", DeprecationWarning)
        import bpe_openai  # type: ignore[import-untyped]  # noqa: PLC0415 - it has no types, and loads here on purpose

        return cast("Callable[[str], list[int]]", bpe_openai.get_encoding(encoding).encode_ordinary)


def _pieces(text: str) -> Iterator[str]:
    """Cuts a long text at seams; where a thousand characters hold no seam, anywhere, which may add a token."""
    start = 0
    while len(text) - start > _PIECE:
        stop = start + _PIECE
        for seam in _SEAM.finditer(text, stop - _LOOKBACK, stop):
            stop = seam.end()
        yield text[start:stop]
        start = stop
    yield text[start:]
