"""How the command line speaks on standard error: one line at a time, in colour where a person reads it.

Nobody may be there to read it: a terminal that was closed, a pipe whose reader has gone, a log on a full disk. What is
being done is worth more than what is said of it, so then it goes on in silence.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

import click

from ratelimit.errors import printable

_LONGEST: Final = 2000  # characters of a message
_LONGEST_SAID: Final = 4000


def complain(message: str) -> None:
    """Say what went wrong; whatever the message holds, it is one line of text."""
    _write(f"{coloured('ratelimit:', sys.stderr, fg='red', bold=True)} {printable(message, _LONGEST)}")


def tell(line: str) -> None:
    """Say something to whoever looks on: one line of text, whatever it holds."""
    _write(printable(line, _LONGEST_SAID))


def _write(line: str) -> None:
    """Write to whatever standard error is now: a panel puts itself in its place, and click goes past it."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:
        with suppress(OSError):  # what is left in its buffer would be tried again, and be an error, at the end
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


def coloured(text: str, stream: object, *, fg: str, bold: bool = False) -> str:
    """Return a text in a colour if it goes to a terminal whose user wants any (https://no-color.org)."""
    return click.style(text, fg=fg, bold=bold) if has_colours(stream) else text


def has_colours(stream: object) -> bool:
    """Return whether colours may be written to a stream."""
    terminal = getattr(stream, "isatty", bool)()
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
