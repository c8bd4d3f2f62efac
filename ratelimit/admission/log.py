"""What is worth a line in a log: the notable of what happens in a lane, and nothing per request.

The lines go to the logger `ratelimit`, which shows nothing until a program or the command line says where. Each kind of
line comes at most once in ten seconds for a limit; the next one says how many there were in between.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final, NamedTuple

from ratelimit.admission.events import Changed, Event, Notice, Paused, ServiceBack, ServiceDown, Stopped
from ratelimit.errors import printable
from ratelimit.limits.drift import Change

LOGGER: Final = logging.getLogger("ratelimit")
LOGGER.addHandler(logging.NullHandler())

_EVERY: Final = 10.0  # seconds between two lines of a kind
_SHARE: Final = 0.1  # of the rate; smaller steps are a lane at work
_RESERVE: Final = 0.5  # of what it was, likewise


class Line(NamedTuple):
    """What to say of an event, how serious it is, and of what kind."""

    level: int
    kind: str
    text: str


class Log:
    """An observer that logs."""

    hears: Final = frozenset((Changed, Notice, Paused, ServiceDown, ServiceBack, Stopped))

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}
        self._suppressed: dict[tuple[str, str], int] = {}
        self._known: dict[tuple[str, str, str], float] = {}  # shares and reserves as they were last spoken of

    def __call__(self, event: Event) -> None:
        """Say what is notable about an event."""
        line = self._changed(event.lane, event.change) if isinstance(event, Changed) else _line(event)
        if line is None or not LOGGER.isEnabledFor(line.level):
            return
        key = (event.lane, line.kind)
        if event.at - self._said.get(key, float("-inf")) < _EVERY:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return
        self._said[key] = event.at
        more = self._suppressed.pop(key, 0)
        LOGGER.log(
            line.level, "%s: %s%s", printable(event.lane, 100), line.text, f" ({more:,} more like it)" if more else ""
        )

    def _changed(self, lane: str, change: Change) -> Line | None:
        if change.kind in {"share", "reserve"}:
            key = (lane, change.kind, change.limit)
            before = self._known.setdefault(key, change.before)
            if abs(change.after - before) < (_SHARE if change.kind == "share" else _RESERVE * before):
                return None
            self._known[key] = change.after
            change = replace(change, before=before)
        level, text = _change(change)
        return Line(level, f"{change.kind} {change.limit}", text)


def _change(change: Change) -> tuple[int, str]:
    """Return how serious a change is, and what to say of it."""
    name, before, after = printable(change.limit, 100), change.before, change.after
    match change.kind:
        case "retuned":
            level = logging.WARNING if after < before else logging.INFO
            return level, f"{name} is {after:,.0f} by what the service says, not {before:,.0f}"
        case "added":
            return logging.INFO, f"the service also has a limit of {after:,.0f} {name}"
        case "cooled":
            return (
                logging.INFO,
                f"refused by {name}: nothing is sent for {f'{after:.3g}' if after < 100 else f'{after:,.0f}'} s",
            )
        case "burst":
            return logging.INFO, f"the service counts {name} in windows: requests leave evenly from now on"
        case "share" if after < before:
            return logging.INFO, f"somebody else is on the key: {after:.0%} of {name} are left to this program"
        case "share":
            return logging.INFO, f"{after:.0%} of {name} are this program's again"
        case "reserve":
            return logging.INFO, f"{after:,.0f} of {name} are kept back from now on, it was {before:,.0f}"
        case "drift":
            more = "more" if after > 0 else "less"
            return logging.DEBUG, f"the service has counted {abs(after):,.0f} {more} of {name} than was thought"


def _line(event: Event) -> Line | None:
    match event:
        case Paused(limit=limit, until=until):
            text = f"waits {(until - event.at) / 60:,.0f} min for {printable(limit, 100)}"
            return Line(logging.WARNING, f"paused {limit}", text)
        case Notice(text=text):
            return Line(logging.WARNING, text, printable(text))
        case ServiceDown(error=error):
            text = "the service seems to be down: single requests ask now and then whether it is back"
            return Line(logging.WARNING, "down", f"{text}; {printable(str(error))}" if error else text)
        case ServiceBack():
            return Line(logging.WARNING, "back", "the service answers again")
        case Stopped(error=error):
            return Line(logging.INFO, "stopped", f"nothing more is sent: {printable(str(error))}")
    return None
