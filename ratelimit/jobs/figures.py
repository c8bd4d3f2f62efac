"""How figures are said to people: times, sums of money and speeds, whether they are tiny or huge."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

SHORTEST: Final = 1.0  # seconds; what went on for less says nothing of how many there are in a minute
_NOTHING: Final = 0.00005  # dollars, in four decimals


def duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 59.95:
        tenths = f"{seconds:.0f} s" if seconds == int(seconds) else f"{seconds:.1f} s"
        return "under 0.1 s" if tenths == "0.0 s" else tenths
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def amount(dollars: float) -> str:
    """Return US dollars without their sign: in cents from one dollar on, below that in hundredths of them."""
    if 0 < dollars < _NOTHING:
        return "under 0.0001"
    return f"{dollars:,.{4 if dollars < 0.99995 else 2}f}" if dollars else "0"


def money(dollars: float) -> str:
    """Return US dollars."""
    return "under $0.0001" if 0 < dollars < _NOTHING else f"${amount(dollars)}"


def price(dollars: float) -> str:
    """Return US dollars as exactly as somebody has given them."""
    return f"${Decimal(str(dollars)).normalize():,f}"


def per_minute(rate: float) -> str:
    """Return so many a second as so many a minute."""
    many = rate * 60
    if 0 < many < 0.05:
        return "under 0.1"
    return f"{many:,.{1 if 0 < many < 9.95 else 0}f}"


def counted(count: int, what: str) -> str:
    """Return how many of something there are."""
    return f"{count:,} {what}{'' if count == 1 else 'es' if what.endswith('ch') else 's'}"
