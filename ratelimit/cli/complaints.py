"""What the command line says beside its results: on standard error, and in colour what a person is to notice."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from ratelimit.errors import printable

_LONGEST: Final = 2000  # characters of a message
_LONGEST_SAID: Final = 4000


def complain(message: str) -> None:
    """Say what went wrong; whatever the message holds, it is one line of text."""
    click.echo(f"{coloured('ratelimit:', sys.stderr, fg='red', bold=True)} {printable(message, _LONGEST)}", err=True)


def tell(line: str) -> None:
    """Say something in one line, by way of whatever standard error is now: a panel puts itself in its place."""
    sys.stderr.write(f"{printable(line, _LONGEST_SAID)}\n")


def coloured(text: str, stream: object, *, fg: str, bold: bool = False) -> str:
    """Return a text in a colour if it goes to a terminal whose user wants any (https://no-color.org)."""
    return click.style(text, fg=fg, bold=bold) if has_colours(stream) else text


def has_colours(stream: object) -> bool:
    """Return whether colours may be written to a stream."""
    terminal = getattr(stream, "isatty", bool)()
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
