"""JSON as some services write it: with a byte order mark, with NaN and infinities, with halves of surrogate pairs.

A strict reader refuses all of it, and with it an answer that was paid for.
"""

from __future__ import annotations

import json
import re

import msgspec

_BOM = b"\xef\xbb\xbf"
_SIGNS = (b"\\ud", b"\\uD", b"NaN", b"Infinity")  # without any of them, a body is as strict as it is
_HALF = re.compile("[\ud800-\udfff]")
_decode = msgspec.json.Decoder().decode


def strictly(body: bytes) -> bytes | None:
    """Return the same as JSON that anybody reads, or None if that cannot be; no number is null, half a pair U+FFFD."""
    try:
        value = json.loads(body.decode("utf-8-sig", "replace"), parse_constant=lambda _: None)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None
    return _HALF.sub("\N{REPLACEMENT CHARACTER}", text).encode()


def for_anybody(body: bytes) -> bytes:
    """Return a body as it is if anybody reads it, else the same strictly; a letter that is broken is U+FFFD."""
    if not body.isascii():
        body = body.decode("utf-8", "replace").encode()
    if not body.startswith(_BOM) and not any(sign in body for sign in _SIGNS):
        return body
    try:
        _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return strictly(body) or body
    return body
