"""`ratelimit limits`: what the tables say, for people on a terminal, in columns for a pipe, and as JSON.

A pipe gets no colour, no frame and no fitting to a width, so that what a script reads today it reads tomorrow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ratelimit.errors import printable
from ratelimit.limits.tiers import TIERS, Model, Source, Table, TierLimits, load
from ratelimit.settings import load_settings

_NOT_SUPPORTED = "Not supported"
_UNKNOWN = "No figures"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table to show: a row with fewer cells than there are columns ends in words, not figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@click.command(name="limits")
@click.argument("model", required=False)
@click.option("--tier", metavar="TIER", help="Only this tier: free, tier-1, ... tier-5.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object for MODEL, else a list of them.")
@click.option(
    "--tiers-file", type=click.Path(path_type=Path), metavar="FILE", help="Your own table, over the one that ships."
)
def limits(model: str | None, tier: str | None, tiers_file: Path | None, *, as_json: bool) -> None:
    """Show what each model allows on each tier, and where the figures come from.

    MODEL is the name of a model, of a snapshot, or of a fine-tuned model. Without it, all models are shown, and with
    --tier their limits on that tier in full.

    On a terminal the tables fit its width. In a pipe they are plain columns, two or more spaces apart: - is no such
    limit, "Not supported" a tier that cannot use the model, "No figures" one that no table has figures for. In JSON,
    amounts are numbers, null for no such limit; a tier that cannot use the model is null, one without figures is not
    there.

    \b
    Examples:
      ratelimit limits gpt-4o-mini
      ratelimit limits --tier tier-3
    """
    settings = load_settings(tier=tier, tiers_file=tiers_file)
    only = settings.tier if tier is not None else None
    table = load(settings.tiers_file) if settings.tiers_file else load()
    found = table.find(model) if model is not None else None
    if found and only:
        table.on(found.name, only)
    if as_json:
        value = _plain(found, only) if found else [_plain(each, only) for each in table.models.values()]
        click.echo(json.dumps(value, indent=2))
        return
    sheet = _one(found, table, only) if found else _all(table, only)
    if sys.stdout.isatty():
        _show(sheet)
        return
    for line in _lines(sheet):
        click.echo(line)


def _one(model: Model, table: Table, only: str | None) -> Sheet:
    tiers = [only] if only else TIERS
    others = ", ".join(name for name in model.names if name != model.name)
    notes = [f"Also known as {others}."] if others else []
    notes += [
        f"Requests of more than {each.long_context_over:,} input tokens count against {each.name}."
        for each in table.models.values()
        if each.long_context_of == model.name and each.long_context_over is not None
    ]
    if model.provider or model.base_url:
        notes.append(f"Served by {' at '.join(filter(None, (model.provider, model.base_url)))}.")
    return Sheet(
        model.name,
        *_figures("Tier", ((_label(tier), model.tiers.get(tier, _UNKNOWN)) for tier in tiers)),
        (*notes, *model.notes, *_sources(model)),
    )


def _all(table: Table, tier: str | None) -> Sheet:
    models = table.models.values()
    notes = tuple(filter(None, (_dates(models), "The sources are with each model: ratelimit limits MODEL")))
    if tier:
        named = ((model.name, model.tiers.get(tier, _UNKNOWN)) for model in models)
        return Sheet(f"Limits on {_label(tier)}", *_figures("Model", named), notes)
    return Sheet(
        "Requests and tokens per minute",
        ("Model", *(_label(tier) for tier in TIERS)),
        tuple((model.name, *(_pair(model, tier) for tier in TIERS)) for model in models),
        ("no: this tier cannot use the model. ?: no figures. -: no such limit.", *notes),
    )


def _figures(
    what: str, named: Iterable[tuple[str, TierLimits | str | None]]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return columns and rows; there is a column for days if anything has a limit for them."""
    rows = list(named)
    days = any(isinstance(each, TierLimits) and each.rpd is not None for _, each in rows)
    columns = (what, "RPM", *(["RPD"] if days else []), "TPM", "Batch queue limit")
    return columns, tuple((name, *_cells(each, days=days)) for name, each in rows)


def _cells(found: TierLimits | str | None, *, days: bool) -> tuple[str, ...]:
    if not isinstance(found, TierLimits):
        return (found or _NOT_SUPPORTED,)
    figures = (found.rpm, *([found.rpd] if days else []), found.tpm, found.batch_queue)
    return tuple("-" if each is None else f"{each:,}" for each in figures)


def _pair(model: Model, tier: str) -> str:
    if tier not in model.tiers:
        return "?"
    found = model.tiers[tier]
    return f"{_short(found.rpm)}/{_short(found.tpm)}" if found else "no"


def _short(amount: int | None) -> str:
    """Return an amount in at most four characters and a letter, exactly."""
    if amount is None:
        return "-"
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if amount >= unit and amount % (unit // 100) == 0:
            return f"{amount / unit:g}{letter}"
    return f"{amount}"


def _sources(model: Model) -> Iterator[str]:
    """Say where the figures are from, once where several groups of them are from one place."""
    groups: dict[Source, list[str]] = {}
    for group, source in model.sources.items():
        groups.setdefault(source, []).append(group)
    for source, named in groups.items():
        yield f"Source of {', '.join(named)}: {_said(source)}"


def _dates(models: Iterable[Model]) -> str:
    known = [model.sources["limits"].as_of for model in models if "limits" in model.sources]
    dates = sorted({each for each in known if each})
    return f"Figures as of {' to '.join(str(each) for each in dict.fromkeys((dates[0], dates[-1])))}." if dates else ""


def _said(source: Source) -> str:
    as_of = f"as of {source.as_of}, " if source.as_of else ""
    return f"{source.text} ({as_of}{source.grade})"


def _label(tier: str) -> str:
    return tier.replace("-", " ").capitalize()


def _plain(model: Model, only: str | None) -> dict[str, object]:
    """Return a model as JSON has it: null for a tier that cannot use it, no entry for one without figures."""
    return {
        "model": model.name,
        "names": model.names,
        "tiers": {
            tier: asdict(found) if found else None
            for tier, found in model.tiers.items()
            if only is None or tier == only
        },
        "sources": {
            group: {
                "text": source.text,
                "as_of": source.as_of.isoformat() if source.as_of else None,
                "grade": source.grade,
            }
            for group, source in model.sources.items()
        },
        "notes": model.notes,
    }


def _lines(sheet: Sheet) -> Iterator[str]:
    full = [row for row in (sheet.columns, *sheet.rows) if len(row) == len(sheet.columns)]
    widths = [max(len(printable(cell)) for cell in column) for column in zip(*full, strict=True)]
    widths[0] = max(len(printable(row[0])) for row in (sheet.columns, *sheet.rows))
    yield printable(sheet.title)
    yield ""
    for name, *cells in (sheet.columns, *sheet.rows):
        right = "".join(f"  {printable(cell):>{width}}" for cell, width in zip(cells, widths[1:], strict=False))
        words = len(cells) + 1 < len(sheet.columns)
        yield f"{printable(name):<{widths[0]}}{f'  {printable(cells[0])}' if words else right}"
    yield ""
    for note in sheet.notes:
        yield printable(note)


def _show(sheet: Sheet) -> None:
    """Show a sheet on a terminal; what it holds is text, whatever brackets are in it."""
    from rich import box  # noqa: PLC0415 - slow, and nothing that a pipe needs
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table as Grid  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    name, *figures = sheet.columns
    grid.add_column(Text(name), overflow="ellipsis")  # a cut name can be told from another, a cut figure cannot
    for column in figures:
        grid.add_column(Text(column), justify="right", no_wrap=True)
    for name, *cells in sheet.rows:
        words = len(cells) + 1 < len(sheet.columns)
        grid.add_row(
            Text(printable(name), style="bold"),
            *(Text(printable(cell), style="dim" if words else "") for cell in cells),
        )
    console.print(Text(printable(sheet.title), style="bold"))
    console.print()
    console.print(grid)
    console.print()
    for note in sheet.notes:
        console.print(Text(printable(note), style="dim"))
