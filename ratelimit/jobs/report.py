"""One page about a run: self-contained HTML, its plots drawn as SVG, nothing fetched from anywhere.

What comes from the service or the input is escaped; what is shown is numbers and the names of models and errors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10
from pathlib import Path

from ratelimit.errors import OutputUnusable, printable
from ratelimit.jobs.figures import duration, money
from ratelimit.jobs.summary import Summary
from ratelimit.jobs.tally import Point, Tally

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 860, 220, 64, 24

_WAITS = {
    "RPM": "requests per minute",
    "TPM": "tokens per minute",
    "RPD": "requests per day",
    "TPD": "tokens per day",
    "pace": "a full limit is opened over some seconds, not in one instant, which many services refuse",
    "concurrency": "as many requests were on their way as may be",
    "first reply": "one request went ahead, to learn from its reply what the service allows",
}
"""What is waited for, in words."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1d21; --faint: #6b7280; --paper: #ffffff; --line: #d7dbe0;
  --one: #2563eb; --two: #059669; --cap: #dc2626; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --faint: #9aa2ad; --paper: #14171a; --line: #343a41;
  --one: #60a5fa; --two: #34d399; --cap: #f87171; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1rem 0; }
dt { color: var(--faint); font-size: .85rem; } dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } text { fill: var(--faint); font-size: 11px; }
@media (max-width: 600px) { text { font-size: 22px; } }
table { border-collapse: collapse; } td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.stopped { border-left: 4px solid var(--cap); padding-left: .8rem; }
"""


def write(path: Path, summary: Summary, tally: Tally) -> None:
    """Write the page."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(page(summary, tally))
    except OSError as error:
        raise OutputUnusable(str(path), error.strerror or str(error), "choose another place for the report") from None


def page(summary: Summary, tally: Tally) -> str:
    """Return the page."""
    points, stretch = tally.points, tally.stretch
    rpm, tpm = (
        sum(limit.limit for lane in summary.lanes if (limit := lane.strictest.get(name))) for name in ("RPM", "TPM")
    )
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>ratelimit: a run</title>",
        f"<style>{_STYLE}</style><h1>A run of {summary.answered + summary.failed:,} requests</h1>",
        f"<p class='stopped'>Stopped: {escape(printable(summary.stopped))}</p>" if summary.stopped else "",
        _facts(summary),
        "<h2>Requests sent in a minute</h2>",
        plot(points, [("var(--one)", tally.in_a_minute(lambda p: p.sent))], stretch, cap=rpm),
        "<p>In the first minute, limits that were unused let more leave than they do in a minute after it.</p>",
        "<h2>Tokens in a minute, in and out, as billed</h2>",
        plot(
            points,
            [("var(--two)", tally.in_a_minute(lambda p: p.input_tokens + p.output_tokens))],
            stretch,
            cap=tpm,
        ),
        "<h2>Seconds from place in line to answer</h2>",
        plot(points, [("var(--one)", [p.latency / p.answered if p.answered else 0.0 for p in points])], stretch),
        _table("Waited for", "seconds", dict(tally.waited), _WAITS),
        _table("Failed because of", "requests", summary.failures),
    ]
    return "\n".join(part for part in parts if part)


def plot(points: Sequence[Point], series: list[tuple[str, list[float]]], stretch: float, *, cap: float = 0.0) -> str:
    """Return lines over the time of the run, and the cap as a line across where it is within sight."""
    if not points:
        return "<p>Nothing was sent.</p>"
    highest = max(max(values) for _, values in series) or 1.0
    shown_cap = cap if cap and cap <= highest * 4 else 0.0
    top = _round(max(highest, shown_cap) * 1.05)
    across = (_WIDTH - _LEFT) / max(len(points) - 1, 1)

    def place(number: int, value: float) -> str:
        return f"{_LEFT + number * across:.1f},{_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - 10):.1f}"

    lines = [f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img'>"]
    for part in (0.0, 0.5, 1.0):
        x, y = place(0, top * part).split(",")
        lines.append(f"<line x1='{x}' x2='{_WIDTH}' y1='{y}' y2='{y}' stroke='var(--line)'/>")
        lines.append(f"<text x='{_LEFT - 6}' y='{float(y) + 4:.1f}' text-anchor='end'>{_short(top * part)}</text>")
    if shown_cap:
        y = place(0, shown_cap).split(",")[1]
        lines.append(f"<line x1='{_LEFT}' x2='{_WIDTH}' y1='{y}' y2='{y}' stroke='var(--cap)' stroke-dasharray='6 4'/>")
        lines.append(
            f"<text x='{_WIDTH}' y='{float(y) - 4:.1f}' text-anchor='end'>the limit, {_short(shown_cap)}</text>"
        )
    for colour, values in series:
        path = " ".join(place(number, value) for number, value in enumerate(values))
        lines.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
    lines.append(f"<text x='{_LEFT}' y='{_HEIGHT - 6}'>0</text>")
    end = duration(len(points) * stretch)
    lines.append(f"<text x='{_WIDTH}' y='{_HEIGHT - 6}' text-anchor='end'>{end}</text></svg>")
    return "".join(lines)


def _facts(summary: Summary) -> str:
    facts = {
        "answered": f"{summary.answered:,}",
        "failed": f"{summary.failed:,}",
        "left": f"{summary.left:,}" if summary.left is not None else "not known",
        "time": duration(summary.seconds),
        "sent again": f"{summary.retried:,}",
        "refused by a limit": f"{summary.refused:,}",
        "tokens in": f"{summary.input_tokens:,}",
        "tokens out": f"{summary.output_tokens:,}",
        "cost": money(summary.cost),
    }
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items()) + "</dl>"


def _table(title: str, unit: str, rows: Mapping[str, float], meanings: Mapping[str, str] | None = None) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr><td>{escape(printable(name))}</td><td class='n'>{_whole(count)}</td>"
        f"<td>{(meanings or {}).get(name, '')}</td></tr>"
        for name, count in sorted(rows.items(), key=lambda row: -row[1])
    )
    return f"<h2>{title}</h2><table><tr><th></th><th>{unit}</th><th></th></tr>{body}</table>"


def _whole(count: float) -> str:
    return f"{count:,.0f}" if count >= 1 or not count else "under 1"


def _round(value: float) -> float:
    """Return the next number up of few digits, as its half has, too."""
    size = 10.0 ** floor(log10(value))
    return next(step * size for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * size >= value)


def _short(value: float) -> str:
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")):
        if value >= size * 0.9995:  # what rounds to a thousand is one of the next size
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
