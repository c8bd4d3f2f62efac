"""Spans of time as servers write them, read into seconds.

`x-ratelimit-reset-*` is a Go `time.Duration` ("2m7.93s"), Azure sends bare numbers there, and `Retry-After` is a number
of seconds or an HTTP date.  What has none of these shapes, or is longer than any window there is, was not observed.  A
duration is added up in whole nanoseconds and divided once, so that 127,930 ms is the same float whichever way it was
written.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

LONGEST = 31 * 86_400.0
"""Seconds; more is absurd: the longest window any vendor counts over is a month."""

LONGEST_TEXT = 64
"""Characters; more is absurd: the longest real value, an HTTP date, has 29.  It bounds the work garbage can cause."""

_ONE_UNIT = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,20}))?(ms|s|us|\u00b5s|\u03bcs|ns|)")
_CLOCK = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})(?:\.([0-9]{1,20}))?s)?")
_DIGITS = {"": 9, "s": 9, "ms": 6, "us": 3, "\u00b5s": 3, "\u03bcs": 3, "ns": 0}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE = re.compile(
    rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{{2}}) ({'|'.join(_MONTHS)}) ([0-9]{{4}})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


def parse_duration(text: str) -> float | None:
    """Read a Go duration or a bare number of seconds; None for anything else, negative or longer than `LONGEST`."""
    if not 0 < len(text) <= LONGEST_TEXT:
        return None
    text = text.strip()
    if found := _ONE_UNIT.fullmatch(text):
        whole, fraction, unit = found.groups(default="")
        nanoseconds = _scaled(whole, fraction, _DIGITS[unit])
    elif text and (found := _CLOCK.fullmatch(text)):
        hours, minutes, whole, fraction = found.groups(default="")
        nanoseconds = (int(hours or 0) * 3600 + int(minutes or 0) * 60) * 10**9 + _scaled(whole, fraction, 9)
    else:
        return None
    seconds = nanoseconds / 10**9
    return seconds if seconds <= LONGEST else None


def parse_http_date(text: str) -> float | None:
    """Read an HTTP date (RFC 9110's one current form) into epoch seconds; None for anything else."""
    if len(text) > LONGEST_TEXT or not (found := _HTTP_DATE.match(text.strip())):
        return None
    day, month, year, hour, minute, second = found.groups()
    try:
        number = _MONTHS.index(month) + 1
        moment = datetime(int(year), number, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp()


def _scaled(whole: str, fraction: str, digits: int) -> int:
    """`whole.fraction` times ten to the `digits`; what is finer than a nanosecond is cut off."""
    return int(whole + fraction[:digits].ljust(digits, "0") or 0)
