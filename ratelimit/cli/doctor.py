"""`ratelimit doctor`: what a request depends on, looked at before one is sent."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click

from ratelimit.cli.complaints import coloured
from ratelimit.compose import make_table
from ratelimit.doctor import Finding, ask, cheapest, examine
from ratelimit.limits.tiers import Model
from ratelimit.settings import Settings, load_settings

_MARKS: Final = {"ok": ("ok   ", "green"), "note": ("note ", "yellow"), "wrong": ("WRONG", "red")}
_WIDE: Final = 9  # characters of the longest name of a finding


@click.command()
@click.option("--tier", metavar="TIER", help="Usage tier of the key: free, tier-1 ... tier-5.")
@click.option("--base-url", metavar="URL", help="Another OpenAI-compatible service.")
@click.option(
    "--tiers-file", type=click.Path(path_type=Path), metavar="FILE", help="Your own table, over the one that ships."
)
@click.option("--model", help="The model that --ask asks; without it, the one that costs least.")
@click.option(
    "--ask/--no-ask",
    "agreed",
    default=None,
    help="Send one small request, and compare the limits its reply claims; or do not. On a terminal you are asked.",
)
@click.option("--yes", is_flag=True, help="The same as --ask: answer the question with yes.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of findings as JSON.")
def doctor(
    *,
    tier: str | None,
    base_url: str | None,
    tiers_file: Path | None,
    model: str | None,
    agreed: bool | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Look at settings, key, tables, tokenizer and service, and say of each what is there and what to do.

    The key is never shown. The list of models is asked for, which costs nothing and tells whether the key is taken. One
    small request is sent only with --ask, or if you agree: its reply claims limits, and they tell the tier.

    The exit code is 0 if nothing is in the way of a request, and 1 if something is.

    \b
    Examples:
      ratelimit doctor
      ratelimit doctor --ask --model gpt-4o-mini
      ratelimit doctor --json
    """
    settings = load_settings(tier=tier, base_url=base_url, tiers_file=tiers_file)
    found = asyncio.run(_told(examine(settings), show=not as_json))
    if all(each.state != "wrong" for each in found):
        table = make_table(settings)
        asked = table.find(model) if model else cheapest(settings, table)
        if yes or agreed or (agreed is None and not as_json and _agrees(settings, asked)):
            found += asyncio.run(_told(ask(settings, asked), show=not as_json))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    return int(any(each.state == "wrong" for each in found))


async def _told(findings: AsyncIterator[Finding], *, show: bool) -> list[Finding]:
    """Return all findings; each is shown as it is made, for some take a moment."""
    found: list[Finding] = []
    async for each in findings:
        found.append(each)
        if show:
            mark, colour = _MARKS[each.state]
            click.echo(f"{coloured(mark, sys.stdout, fg=colour)}  {each.what:<{_WIDE}}  {each.said}")
    return found


def _agrees(settings: Settings, model: Model) -> bool:
    """Ask whether a request may be sent; nobody is asked in a pipe, and then nothing is."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm(f"Send one request of a few tokens to {model.name} at {settings.base_url}?", default=False)
