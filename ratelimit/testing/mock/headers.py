"""The rate limit headers of a reply, as the service writes them.

Names, the `Go` durations, and the rule that a day's bucket hides the minute's are taken from recorded replies of the
service: where a model has requests per day, the `*-requests` headers speak of the day alone.
"""

from __future__ import annotations

from ratelimit.testing.mock.counting import Counter, Meter, Overrun

Rows = list[tuple[str, str]]


def lines(rows: Rows) -> str:
    """Header rows as they stand in a reply."""
    return "".join([f"{name}: {value}\r\n" for name, value in rows])


def rows(lines: str) -> Rows:
    """Header lines as names and values."""
    return [(name, value) for line in lines.splitlines() for name, _, value in [line.partition(": ")]]


def go_ms(ms: int) -> str:
    """Whole milliseconds as Go prints a duration: `0s`, `120ms`, `8.64s`, `2m7.93s`, `6m0s`."""
    if ms == 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:03d}".rstrip("0") if rest else ""
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}{fraction}s"


def _three(kind: str, meter: Meter, now: int) -> str:
    limit = meter.cap.limit
    left = limit - meter.used(now)
    return (
        f"x-ratelimit-limit-{kind}: {limit}\r\nx-ratelimit-remaining-{kind}: {max(0, left)}\r\n"
        f"x-ratelimit-reset-{kind}: {go_ms(meter.full_in(now) // 1000)}\r\n"
    )


def limit_lines(counter: Counter, now: int, *, images: bool = False) -> str:
    """The `x-ratelimit-*` headers for what the counter holds now, as lines: this is written with every reply."""
    text = ""
    for kind, meter in counter.shown:
        if images or kind != "input-images":
            text += _three(kind, meter, now)
    return text


def retry_rows(overrun: Overrun) -> Rows:
    """`retry-after` in whole seconds, never below one, and `retry-after-ms`; nothing when waiting cannot help."""
    if overrun.wait_ms is None:
        return []
    return [
        ("retry-after", str(max(-(-overrun.wait_ms // 1000), 1))),
        ("retry-after-ms", str(max(overrun.wait_ms, 1))),
    ]
