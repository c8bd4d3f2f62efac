"""Plots as SVG, written by hand: bars beside each other, and lines on logarithmic axes. Results in, text out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#0b6e4f", "#c0504d", "#4f81bd", "#9b7d2b", "#8064a2", "#e08e0b", "#5a5a5a", "#2aa5a0", "#a0a0a0")
_STYLE = "font-family:system-ui,sans-serif;font-size:12px;fill:#333"
_WIDTH = 760


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">\n<rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([head, _text(12, 22, title, size=15), *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    style = _STYLE if size == 12 else _STYLE.replace("12px", f"{size}px")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{style}">{escape(text)}</text>'


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars from 0 to 1, in groups; a name has the same colour in each."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    left, full, y, parts = 215.0, _WIDTH - 215.0 - 60, 44.0, list[str]()
    for group, values in groups.items():
        parts.append(_text(12, y + 12, group, size=13))
        for name, value in values.items():
            y += 16
            parts.append(_text(left - 8, y + 11, name, anchor="end"))
            width = max(min(value, 1.0) * full, 1.0)
            parts.append(f'<rect x="{left}" y="{y + 2:.1f}" width="{width:.1f}" height="11" fill="{colours[name]}"/>')
            parts.append(_text(left + width + 6, y + 11, f"{value:.2f}"))
        y += 26
    return _svg(y, parts, title)


def lines(title: str, x_name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over an axis of powers of ten, each point relative to the first of its line: flat is what one hopes for."""
    left, top, width, height = 60.0, 40.0, _WIDTH - 300.0, 240.0
    points = [point for line in series.values() for point in line]
    low, high = (math.log10(pick(x for x, _ in points)) for pick in (min, max))
    relative = {name: [(x, y / line[0][1]) for x, y in line] for name, line in series.items()}
    most = max(2.0, *(y for line in relative.values() for _, y in line)) * 1.1

    def at(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(x) - low) / max(high - low, 1e-9)
        return left + share * width, top + height - y / most * height

    parts = []
    for power in range(math.floor(low), math.ceil(high) + 1):
        if low <= power <= high:
            x, _ = at(10.0**power, 0)
            parts.append(f'<path d="M{x:.1f} {top}V{top + height}" stroke="#ddd"/>')
            parts.append(_text(x, top + height + 18, f"{10**power:,}", anchor="middle"))
    step = 1 if most <= 6 else math.ceil(most / 5)
    for level in range(0, math.floor(most) + 1, step):
        _, y = at(10.0**low, level)
        parts.append(f'<path d="M{left} {y:.1f}H{left + width}" stroke="#ddd"/>')
        parts.append(_text(left - 8, y + 4, f"{level}x", anchor="end"))
    parts.append(_text(left + width / 2, top + height + 36, x_name, anchor="middle"))
    for place, (name, line) in enumerate(relative.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        places = [at(x, y) for x, y in line]
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        key = top + 14 + place * 18
        parts.append(f'<rect x="{left + width + 18}" y="{key - 9:.1f}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(left + width + 34, key, name))
    return _svg(top + height + 48, parts, title)
