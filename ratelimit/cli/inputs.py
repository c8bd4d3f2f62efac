"""What commands that read requests have in common: where those come from, and how long a time is written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ratelimit.errors import printable
from ratelimit.jobs.source import Shard, Source
from ratelimit.jobs.template import Template, Templated

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    _Kind = click.ParamType[Any]
else:  # generic from click 8.4 on, and not before
    _Kind = click.ParamType

_FILE = click.Path(path_type=Path, dir_okay=False)


class Duration(_Kind):
    """Seconds, or a number with s, min, h or d."""

    name = "duration"
    _UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012 - never changed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?", str(value).strip())
        if not found:
            self.fail(f"{printable(str(value))!r} is not a duration; write 90, 90s, 15min, 2h or 1d", param, ctx)
        return float(found[1]) * self._UNITS[found[2] or ""]


class Dollars(_Kind):
    """An amount of money that can be reached: what is no number would be no bound."""

    name = "dollars"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return dollars."""
        try:
            dollars = float(value)
        except ValueError:
            dollars = 0.0
        if not 0 < dollars < math.inf:
            self.fail(f"{printable(str(value))!r} is no amount above 0; write dollars, such as 1 or 0.5", param, ctx)
        return dollars


class Part(_Kind):
    """One of so many parts, counted from 0."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        """Return the part."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(value).strip())
        if not found or int(found[1]) >= int(found[2]):
            self.fail(f"{printable(str(value), 100)!r} is no part; of four, write 0/4, 1/4, 2/4 or 3/4", param, ctx)
        return Shard(int(found[1]), int(found[2]))


class Port(_Kind):
    """A port, which may be left out at the end of a line only: any other word would be taken for it."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return a number that a port may have."""
        if not str(value).isdecimal() or int(value) > 65535:
            option = param.opts[0] if param else "the option"
            self.fail(f"{printable(str(value))!r} is no port; write {option}=8000, or {option} at the end", param, ctx)
        return int(value)


def templated(command: F) -> F:
    """Give a command the options that make requests out of rows."""
    for option in (
        click.option("--schema", type=_FILE, help="With --template: a JSON schema that answers follow."),
        click.option("--system", metavar="TEXT", help="With --template: the system message."),
        click.option(
            "--template", type=_FILE, help="Input is rows (CSV or JSONL); this text with {column}s is the prompt."
        ),
    ):
        command = option(command)
    return command


def source(requests: str, given: dict[str, Any]) -> Source:
    """Return the requests that a command is given; raises `UsageError` for options that do not go together."""
    if given["template"] is None:
        for needless in ("system", "schema"):
            if given[needless] is not None:
                raise click.UsageError(f"--{needless} goes with --template")
        return Source(requests, model=given["model"])
    if given["model"] is None:
        raise click.UsageError("--template needs --model: rows name none")
    template = Template.read(given["template"], model=given["model"], system=given["system"], schema=given["schema"])
    return Templated(requests, template=template)
