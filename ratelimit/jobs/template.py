"""Requests made from rows: a CSV or JSONL file of columns, and a text with {column}s to put them in.

So that nobody has to write a converter. Whatever a row holds stays data: it is put in once, and what stands in it is
not looked at for further columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ratelimit.errors import BadRequest, InputUnreadable, RequestInvalid, printable
from ratelimit.jobs.reading import LONGEST_LINE, opened
from ratelimit.jobs.source import Row, Source, Wanted, checked_id, digest
from ratelimit.limits.content import CHAT_PATH
from ratelimit.wire.messages import parse

_COLUMN = re.compile(r"\{\{|\}\}|\{([^{}\n]+)\}")
_ID_COLUMNS = ("custom_id", "id")


_QUOTES = 'a field with a quote in it is written as "so ""called"" one", and its quotes are closed'


class BadTemplate(BadRequest):
    """The template or the schema is not one that rows can be put in."""

    def __init__(self, path: Path, why: str, remedy: str) -> None:
        super().__init__(f"cannot use {printable(str(path))}: {printable(why)}; {remedy}")


@dataclass(frozen=True, slots=True)
class Template:
    """What each row's request looks like."""

    model: str
    prompt: str
    system: str | None = None
    schema: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, prompt: Path, *, model: str, system: str | None = None, schema: Path | None = None) -> Template:
        """Read a prompt and a schema from their files."""
        return cls(model, _text(prompt), system, _schema(schema) if schema else None)

    def body(self, columns: Mapping[str, Any]) -> bytes:
        """Return the body for one row; raises `RequestInvalid` for a column the row has not."""
        messages = [{"role": "system", "content": fill(self.system, columns)}] if self.system else []
        messages.append({"role": "user", "content": fill(self.prompt, columns)})
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        if self.schema is not None:
            answer = {"name": "answer", "strict": True, "schema": self.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": answer}
        return msgspec.json.encode(body)


def fill(text: str, columns: Mapping[str, Any]) -> str:
    """Put a row's columns into a text; {{ and }} stand for braces."""

    def put(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0][0]
        if name not in columns:
            raise RequestInvalid(
                f"the row has no column {printable(name)}, only {printable(', '.join(map(str, columns)))}",
                "name a column that is there, or write {{ and }} for braces",
            )
        return as_text(columns[name])

    return _COLUMN.sub(put, text)


def as_text(value: object) -> str:
    """Return a value as it stands in a text: what is no text as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


@dataclass(frozen=True, slots=True)
class Templated(Source):
    """A source whose lines are rows of columns."""

    template: Template | None = None

    @property
    def _suffixes(self) -> list[str]:
        return [suffix.lower() for suffix in Path(self.path).suffixes]

    def _rows(self, wanted: Wanted) -> Iterator[Row]:
        assert self.template is not None  # noqa: S101 - it is what makes a source templated
        with opened(self.path) as file:
            if ".csv" in self._suffixes:
                yield from self._of_csv(file, wanted)
                return
            yield from self._of_lines(file, wanted, self._of_json)

    def _of_csv(self, file: Any, wanted: Wanted) -> Iterator[Row]:
        csv.field_size_limit(LONGEST_LINE)  # the module's own is 128 KiB, less than many a document
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.DictReader(text, strict=True)  # else a quote that is not closed takes all that follows
        number = 2  # of the line a row begins on: a quoted field may hold line feeds
        try:
            if len(set(reader.fieldnames or ())) < len(reader.fieldnames or ()):
                raise InputUnreadable(self.path, "two columns have the same name", "give each a name of its own")
            number = reader.line_num + 1
            for place, columns in enumerate(reader):
                if wanted(place):
                    row = self._row(number, columns)
                    row.place = place
                    yield row
                number = reader.line_num + 1
        except UnicodeDecodeError:
            raise InputUnreadable(self.path, f"line {number} or a later one is not UTF-8", "save it as UTF-8") from None
        except csv.Error as error:
            raise InputUnreadable(self.path, f"line {number}: {error}", _QUOTES) from None
        finally:
            text.detach()

    def _of_json(self, number: int, line: bytes) -> Row:
        try:
            columns = parse(line, "row", "rows are objects of JSON, one a line, or a CSV in a file that ends in .csv")
            if not isinstance(columns, dict):
                raise RequestInvalid("the row is not an object", 'a row is {"column": value, ...}')  # noqa: TRY301
        except RequestInvalid as error:
            return Row(number, f"line-{number}", problem=str(error))
        return self._row(number, columns)

    def _row(self, number: int, columns: Mapping[str, Any]) -> Row:
        try:
            if None in columns or (None in columns.values() and ".csv" in self._suffixes):
                raise RequestInvalid("the row has not as many fields as the header", "give each row all columns")  # noqa: TRY301
            body = self.template.body(columns) if self.template else b""
            name = next((as_text(columns[key]) for key in _ID_COLUMNS if columns.get(key) not in (None, "")), None)
            if name is not None:
                checked_id(name)
        except RequestInvalid as error:
            return Row(number, f"line-{number}", problem=str(error))
        identifier = f"line-{number}-{digest(body):016x}" if name is None else name
        return Row(number, identifier, CHAT_PATH, body)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadTemplate(path, "it is not UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise BadTemplate(path, error.strerror or str(error), "name a file that can be read") from None


def _schema(path: Path) -> Mapping[str, Any]:
    try:
        schema = parse(_text(path).encode())
    except RequestInvalid as error:
        raise BadTemplate(path, str(error), "a schema is a JSON object") from None
    if not isinstance(schema, dict):
        raise BadTemplate(path, "it is not an object", "a schema is a JSON object")
    return schema
