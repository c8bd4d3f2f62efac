"""What a row of a dataset asks for: a line as in a file of requests, in a column of the row or made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ratelimit.errors import RequestInvalid, printable
from ratelimit.jobs.source import Row, Source
from ratelimit.jobs.template import as_text

Asks = bytes | str | Mapping[str, Any]
"""A line of the Batch API or a bare body: as JSON, or as a mapping."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How rows become requests: `request` names a column, or makes the request from the row."""

    request: str | Callable[[dict[str, Any]], Asks]
    id_column: str | None = None
    model: str | None = None

    def row(self, columns: dict[str, Any]) -> Row:
        """Return what one row asks for, or what is wrong with it; raises nothing."""
        try:
            asks = _column(columns, self.request) if isinstance(self.request, str) else self.request(columns)
            row = Source("-", self.model).row(0, _line(asks))
            return row if self.id_column is None else replace(row, id=as_text(_column(columns, self.id_column)))
        except Exception as error:  # noqa: BLE001 - whatever a function of the user's stumbles over is wrong with the row
            why = str(error) if isinstance(error, RequestInvalid) else f"{type(error).__name__}: {error}"
            return Row(0, "row", problem=printable(why))


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        there = printable(", ".join(columns))
        raise RequestInvalid(f"the row has no column {printable(name)}, only {there}", "name a column that is there")
    return columns[name]


def _line(asks: Asks) -> bytes:
    if isinstance(asks, str):
        return asks.encode()
    return asks if isinstance(asks, bytes) else msgspec.json.encode(_said(asks))


def _said(value: Any) -> Any:
    """Return a value without its empty fields: a column gives every row the fields that any row has."""
    if isinstance(value, Mapping):
        return {name: _said(each) for name, each in value.items() if each is not None}
    return [_said(each) for each in value] if isinstance(value, list) else value
