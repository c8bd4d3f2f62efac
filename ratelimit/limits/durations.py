"""Spans of time as servers write them, read into seconds.

`x-ratelimit-reset-*` is a Go `time.Duration` ("2m7.93s"), Azure sends bare numbers there, and `Retry-After` is a number of
seconds or an HTTP date.  All are read here by one rule: what is not one of those shapes, or longer than any window there
is, was not observed.  The spans are added up in whole nanoseconds and divided once, so "127.93 s" is the same float
whichever way it was written.
"""

from __future__ import annotations


def parse_duration(text: str) -> float | None:
    """Read a Go duration or a bare number of seconds; None for anything else, negative or absurdly long."""
    raise NotImplementedError
