"""Requests made from rows of columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ratelimit.errors import InputUnreadable
from ratelimit.jobs.source import Row
from ratelimit.jobs.template import BadTemplate, Template, Templated, fill


def rows(tmp_path: Path, name: str, content: bytes, prompt: str = "Say {text}.") -> list[Row]:
    (tmp_path / name).write_bytes(content)
    template = Template("gpt-4o-mini", prompt)
    return list(Templated(str(tmp_path / name), template=template).rows())


def asked(row: Row) -> str:
    return str(json.loads(row.body)["messages"][-1]["content"])


def test_rows_of_a_csv(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfid,text,\r\na,"one\r\ntwo, ""three""",0\r\n,last {text},1\r\n'
    first, second = rows(tmp_path, "rows.csv", content)
    assert (first.number, first.id, asked(first)) == (2, "a", 'Say one\r\ntwo, "three".')
    assert (second.number, asked(second)) == (4, "Say last {text}.")
    assert second.id.startswith("line-4-")


def test_a_header_that_takes_two_lines(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "rows.csv", b'text,"a\nb"\nx,y\n')
    assert (row.number, asked(row)) == (3, "Say x.")


def test_rows_with_too_few_and_too_many_fields(tmp_path: Path) -> None:
    found = rows(tmp_path, "rows.csv", b"id,text\na\nb,x,y\nc,z\n")
    why = "the row has not as many fields as the header; give each row all columns"
    assert [(row.number, row.problem) for row in found] == [(2, why), (3, why), (4, None)]


def test_rows_of_jsonl(tmp_path: Path) -> None:
    content = b'{"id": [1], "text": {"a": 2}}\n\n{"custom_id": 7, "text": "x"}\n[]\nwhat?\n{"id": 1}\n'
    found = rows(tmp_path, "rows.jsonl", content)
    assert [(row.number, row.id) for row in found] == [
        (1, "[1]"), (3, "7"), (4, "line-4"), (5, "line-5"), (6, "line-6"),
    ]  # fmt: skip
    assert asked(found[0]) == 'Say {"a":2}.'
    assert [row.problem for row in found[2:]] == [
        'the row is not an object; a row is {"column": value, ...}',
        (
            "the row is not JSON: JSON is malformed: invalid character (byte 0); rows are objects of JSON, one a line, "
            "or a CSV in a file that ends in .csv"
        ),
        "the row has no column text, only id; name a column that is there, or write {{ and }} for braces",
    ]


def test_fields_larger_than_the_csv_module_takes_by_itself(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "rows.csv", b"text\n" + b"x" * 200_000 + b"\n")
    assert len(asked(row)) == 200_005


QUOTES = 'a field with a quote in it is written as "so ""called"" one", and its quotes are closed'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a,a\n1,2\n", "two columns have the same name; give each a name of its own"),
        (b"text\n\xff\n", "line 2 or a later one is not UTF-8; save it as UTF-8"),
        (b'text\na\n"b\nc\nd\n', f"line 3: unexpected end of data; {QUOTES}"),
        (b'text\na\n"b"c\nd\n', f"line 3: ',' expected after '\"'; {QUOTES}"),
    ],
)
def test_a_csv_that_cannot_be_read(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(InputUnreadable) as caught:
        rows(tmp_path, "rows.csv", content)
    assert str(caught.value).replace("line 1 or", "line 2 or") == f"cannot read {tmp_path / 'rows.csv'}: {why}"


def test_an_id_of_a_row_is_no_longer_than_that_of_a_line(tmp_path: Path) -> None:
    for name, content in (("rows.csv", "id,text\n{},b\n"), ("rows.jsonl", '{{"id": "{}", "text": "b"}}\n')):
        (row,) = rows(tmp_path, name, content.format("x" * 513).encode())
        assert row.problem == "the custom_id has 513 characters; at most 512 are allowed"


def test_braces_and_what_a_column_holds_are_left_alone() -> None:
    assert fill("{{x}} {a}", {"a": "{b} {{"}) == "{x} {b} {{"


def test_system_and_schema(tmp_path: Path) -> None:
    for name, text in (("p", "Hi {a}"), ("s", '{"type": "object"}'), ("bad", "[]")):
        (tmp_path / name).write_text(text)
    body = json.loads(Template.read(tmp_path / "p", model="m", system="Be {a}", schema=tmp_path / "s").body({"a": "x"}))
    assert body["messages"] == [{"role": "system", "content": "Be x"}, {"role": "user", "content": "Hi x"}]
    assert body["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": {"type": "object"}}
    with pytest.raises(BadTemplate) as caught:
        Template.read(tmp_path / "p", model="m", schema=tmp_path / "bad")
    assert str(caught.value) == f"cannot use {tmp_path / 'bad'}: it is not an object; a schema is a JSON object"


def test_a_csv_is_known_by_its_name_however_that_is_written(tmp_path: Path) -> None:
    assert [asked(row) for row in rows(tmp_path, "ROWS.CSV", b"id,text\na,x\n")] == ["Say x."]
