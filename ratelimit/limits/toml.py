"""TOML read in bounded time, whoever wrote it.

The parser of the standard library takes time in the square of a key's parts, and a second for each megabyte or two of
anything. No file of settings or tiers comes near either bound.
"""

from __future__ import annotations

import tomllib
from typing import Any

MOST = 500_000
"""Bytes of a file; the tiers that ship have 30,000."""

_MOST_DOTS = 1_000  # in one line: they may join the parts of a key


def parse_toml(raw: bytes) -> dict[str, Any]:
    """Return what a file says; raises ValueError, or RecursionError where values are nested too deeply."""
    if len(raw) > MOST:
        raise ValueError(f"it has {len(raw):,} bytes, at most {MOST:,} are read")
    for number, line in enumerate(raw.split(b"\n"), 1):
        if line.count(b".") > _MOST_DOTS:
            raise ValueError(f"line {number:,} has more than {_MOST_DOTS:,} dots")
    return tomllib.loads(raw.removeprefix(b"\xef\xbb\xbf").decode())
