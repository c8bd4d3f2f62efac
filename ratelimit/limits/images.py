"""What an image in a request is billed, in tokens.

Two schemes, by model family (the vendor's images and vision guide, 2026). Tile models scale an image down to fit a
square of 2048 and then to a short side of 768, and bill a base and so much per tile of 512. Patch models bill patches
of 32, at most 1536, times a factor; an image with more is shrunk to whole patches first.

A size is known only for a PNG inside the request. Any other image is taken for the largest there is, unless its detail
is low: a bill is then never higher than foretold. What the rate limit takes for an image is another matter: `charge`.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Tiles(NamedTuple):
    """Tokens of an image: a base and so much per tile."""

    base: int
    each: int


class Patches(NamedTuple):
    """Tokens of an image: patches times a factor."""

    factor: Fraction


# Longest name first within a family; what is not named here is billed as gpt-4o is.
_SCHEMES: tuple[tuple[str, Tiles | Patches], ...] = (
    ("gpt-4o-mini", Tiles(2833, 5667)),
    ("gpt-4.1-mini", Patches(Fraction("1.62"))),
    ("gpt-4.1-nano", Patches(Fraction("2.46"))),
    ("gpt-5-mini", Patches(Fraction("1.62"))),
    ("gpt-5-nano", Patches(Fraction("2.46"))),
    ("o4-mini", Patches(Fraction("1.72"))),
    ("gpt-5", Tiles(70, 140)),
    ("o1", Tiles(75, 150)),
    ("o3", Tiles(75, 150)),
)
_DEFAULT = Tiles(85, 170)
_MOST_PATCHES = 1536
_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD = 44  # base64 characters that hold the first 33 bytes of a PNG: signature and header


def image_tokens(model: str, size: tuple[int, int] | None, detail: str = "auto") -> int:
    """Billed tokens of one image of `size` (width, height); of the largest where the size is not known."""
    match scheme_of(model):
        case Tiles(base, each):
            return base if detail == "low" else base + each * (_tiles(*size) if size else 8)
        case Patches(factor):
            return math.ceil(factor * (_patches(*size) if size else _MOST_PATCHES))


@lru_cache(maxsize=256)
def scheme_of(model: str) -> Tiles | Patches:
    """How a model, a snapshot or a fine-tune of it bills images."""
    name = model.removeprefix("ft:")
    return next((scheme for family, scheme in _SCHEMES if name.startswith(family)), _DEFAULT)


def picture(part: Mapping[str, object]) -> tuple[tuple[int, int] | None, str]:
    """The size, where it can be read, and the detail of a content part that is an image."""
    image = part.get("image_url")
    source: Mapping[str, object] = image if isinstance(image, dict) else {"url": image, "detail": part.get("detail")}
    url, detail = source.get("url"), source.get("detail")
    return (_png_size(url) if isinstance(url, str) else None), (detail if isinstance(detail, str) else "auto")


def _tiles(width: int, height: int) -> int:
    """Tiles after scaling down, in whole numbers: the longest side to 2048, then the shortest to 768."""
    scale = min(Fraction(1), Fraction(2048, max(width, height)))
    scale = min(scale, Fraction(768, min(width, height)))
    return math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


def _patches(width: int, height: int) -> int:
    """Patches; where they are too many, of the image shrunk until both sides are whole patches and they are not."""
    across, down = -(-width // 32), -(-height // 32)
    if across * down <= _MOST_PATCHES:
        return across * down
    across = max(1, math.isqrt(_MOST_PATCHES * width // height))
    down = max(1, math.isqrt(_MOST_PATCHES * height // width))
    if across * height <= down * width:  # the width had to shrink more
        down = -(-across * height // width)
    else:
        across = -(-down * width // height)
    return min(_MOST_PATCHES, across * down)


def _png_size(url: str) -> tuple[int, int] | None:
    """Width and height out of the header of a PNG in a data URL."""
    if not url.startswith("data:image/png;base64,"):
        return None
    start = len("data:image/png;base64,")
    try:
        head = binascii.a2b_base64(url[start : start + _HEAD])
    except ValueError:
        return None
    if len(head) < 24 or not head.startswith(_PNG):
        return None
    width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    return (width, height) if width and height else None
