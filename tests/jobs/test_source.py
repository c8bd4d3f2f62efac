"""Whatever is in an input file, a run learns what is on which line, and nothing else happens."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import InputUnreadable, RequestInvalid, printable
from ratelimit.jobs import reading, source
from ratelimit.jobs.source import Row, Shard, Source

BODY = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
SHAPE = 'a line is {"custom_id": ..., "method": "POST", "url": ..., "body": {...}} or a bare body'
NO_MESSAGES = (
    "the line has neither a body nor messages; a bare body is one of chat; others go as "
    '{"custom_id": ..., "url": "/v1/embeddings", "body": {...}}'
)

Put = Callable[..., Source]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def put(content: bytes, name: str = "requests.jsonl") -> Source:
        (tmp_path / name).write_bytes(content)
        return Source(str(tmp_path / name))

    return put


def line(identifier: str, body: str = BODY, **more: Any) -> bytes:
    outer = "".join(f', "{name}": {json.dumps(value)}' for name, value in more.items())
    return f'{{"custom_id": {json.dumps(identifier)}{outer}, "body": {body}}}\n'.encode()


def problem(row: Row) -> str:
    """What is wrong with a row, whichever place notices it."""
    if row.problem:
        return row.problem
    with pytest.raises(RequestInvalid) as caught:
        row.request()
    return str(caught.value)


def test_a_batch_line(put: Put) -> None:
    (row,) = put(line("a", method="POST", url="/v1/embeddings")).rows()
    assert (row.number, row.id, row.path, row.body, row.problem) == (1, "a", "/v1/embeddings", BODY.encode(), None)


def test_the_bytes_of_a_body_are_kept(put: Put) -> None:
    body = (
        '{ "model":"gpt-4o-mini",  "seed": 123456789012345678901234567890, "x": 0.1000000000000000001,"y":"\\u00e9" }'
    )
    (row,) = put(line("a", body)).rows()
    assert row.request().body == body.encode()


def test_a_bare_body_is_named_for_line_and_content(put: Put) -> None:
    first, second = put(f"{BODY}\n{BODY}\n".encode()).rows()
    assert (first.id, second.id) == ("line-1-d709d1ada0d3ddb6", "line-2-d709d1ada0d3ddb6")
    assert first.body == BODY.encode()
    assert first.path == "/v1/chat/completions"


def test_lines_end_with_a_line_feed_and_nothing_else(put: Put) -> None:
    inside = '"x\u2028y\u2029z\u0085w"'
    content = f'\ufeff{{"custom_id":"a","body":{inside}}}\r\n\r\n  \n\t{{"custom_id":"b","body":{BODY}}}'.encode()
    assert [(row.number, row.id) for row in put(content).rows()] == [(1, "a"), (4, "b")]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".zstd"])
def test_packed_files(tmp_path: Path, suffix: str) -> None:
    plain = b"".join(line(f"row {number}") for number in range(5000))
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    packed = pack(plain[:100_000]) + pack(plain[100_000:])  # in two pieces, as parallel packers write them
    (tmp_path / f"r.jsonl{suffix}").write_bytes(packed)
    found = [row.id for row in Source(str(tmp_path / f"r.jsonl{suffix}")).rows()]
    assert found == [f"row {number}" for number in range(5000)]


@pytest.mark.parametrize(
    ("suffix", "why"),
    [
        (".gz", "Compressed file ended before the end-of-stream marker was reached"),
        (".zst", "the file is cut short"),
    ],
)
def test_a_packed_file_that_was_cut_short(tmp_path: Path, suffix: str, why: str) -> None:
    plain = b"".join(line(f"row {number}") for number in range(5000))
    packed = gzip.compress(plain) if suffix == ".gz" else zstandard.ZstdCompressor().compress(plain)
    path = tmp_path / f"r.jsonl{suffix}"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    with pytest.raises(InputUnreadable) as caught:
        list(Source(str(path)).rows())
    assert str(caught.value) == f"cannot read {path}: {why}; name a file of requests, one JSON object a line"


@pytest.mark.parametrize(
    ("suffix", "content", "why"),
    [
        (".gz", b"not packed", "Not a gzipped file (b'no')"),
        (".gz", gzip.compress(b"{}")[:10] + b"\x07" * 40, "Error -3 while decompressing data: "),
        (".zst", b"not packed at all", "zstd decompressor error: Unknown frame descriptor"),
    ],
    ids=["no gzip", "broken gzip", "no zstd"],
)
def test_a_packed_file_that_is_none(tmp_path: Path, suffix: str, content: bytes, why: str) -> None:
    path = tmp_path / f"r.jsonl{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputUnreadable) as caught:
        list(Source(str(path)).rows())
    assert str(caught.value).startswith(f"cannot read {path}: {why}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"what?", f"the line is not JSON: JSON is malformed: invalid character (byte 0); {SHAPE}"),
        (b'{"custom_id": "a", "bo', f"the line is not JSON: Input data was truncated; {SHAPE}"),
        (b"[1, 2]", f"the line is not a request: Expected `object`, got `array`; {SHAPE}"),
        (
            b'{"custom_id": 5, "body": {}}',
            f"the line is not a request: Expected `str | null`, got `int` - at `$.custom_id`; {SHAPE}",
        ),
        (b'{"body": {}}', "the line has a body but no custom_id; give each line an id of its own"),
        (b'{"custom_id": "", "body": {}}', "the line has a body but no custom_id; give each line an id of its own"),
        (line("x" * 600), "the custom_id has 600 characters; at most 512 are allowed"),
        (line("a", method="GET"), 'the method is "GET"; requests are POSTed'),
        (line("a", url="/v1/files"), 'the url is "/v1/files"; it is a path such as /v1/chat/completions'),
        (
            line("a", url="https://evil.example/v1/chat/completions"),
            'the url is "https://evil.example/v1/chat/completions"; it is a path such as /v1/chat/completions',
        ),
        (b'{"custom_id": "a", "body": null}', "the body is a null; a request is a JSON object with a model"),
        (b'{"custom_id": "a", "body": [1]}', "the body is a list; a request is a JSON object with a model"),
        (b'{"model": "m", "input": "x"}', NO_MESSAGES),
        (b'{"custom_id": "a", "url": "/v1/embeddings"}', NO_MESSAGES),
        (b"{}", NO_MESSAGES),
        (b'{"messages": []}', 'the body names no model; add "model": "gpt-4o-mini" or another model\'s name'),
        (line("a", '{"model": 4}'), 'the model is 4; add "model": "gpt-4o-mini" or another model\'s name'),
        (
            line("a", '{"model": "m", "stream": true}'),
            'the body asks for a stream; a file has no place for one; remove "stream": true',
        ),
        (b'{"custom_id": "\xff"}', "the line is not UTF-8 at byte 15; save the file as UTF-8"),
        (b'{"custom_id": "a\x00"}', f"the line is not JSON: JSON is malformed: invalid character (byte 16); {SHAPE}"),
        (
            line("a", '{"model": "m", "temperature": NaN}'),
            f"the line is not JSON: JSON is malformed: invalid character (byte 57); {SHAPE}",
        ),
        (
            line("a", '{"model": "m", "temperature": -Infinity}'),
            f"the line is not JSON: JSON is malformed: invalid character (byte 58); {SHAPE}",
        ),
        (
            line("a", '{"model": "m", "temperature": 1e999}'),
            "the body is not JSON: Number out of range - at `$[...]`; a request is one JSON object",
        ),
        (
            b'{"custom_id": "a", "body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "the line is nested too deeply; no request needs more than a few levels",
        ),
    ],
)
def test_what_is_wrong_with_a_line(put: Put, content: bytes, expected: str) -> None:
    (row, good) = put(content.rstrip(b"\n") + b"\n" + line("good")).rows()
    assert problem(row) == expected
    assert (row.number, good.number, good.id, good.problem) == (1, 2, "good", None)


@pytest.mark.parametrize("identifier", ["a\nb", "\x1b[2J\x07", "../../etc/passwd", "/dev/null", "\u202eabc", "é🎉"])
def test_ids_are_kept_as_they_are(put: Put, identifier: str) -> None:
    (row,) = put(line(identifier)).rows()
    assert (row.id, row.problem) == (identifier, None)


def test_a_line_that_is_too_long_is_passed_over_without_being_held(
    put: Put, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (reading, source):
        monkeypatch.setattr(module, "LONGEST_LINE", 1000)
    long, fits = b'"' + b"x" * 5000 + b'"\n', line("b", '{"model": "' + "m" * 900 + '"}')
    rows = list(put(long + fits + long + b"z" * 2000).rows())
    assert [(row.number, row.id) for row in rows] == [(1, "line-1"), (2, "b"), (3, "line-3"), (4, "line-4")]
    assert [row.problem for row in rows] == [
        "the line has 5,003 bytes, at most 1,000 are read",
        None,
        "the line has 5,003 bytes, at most 1,000 are read",
        "the line has 2,000 bytes, at most 1,000 are read",
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"messages": []}', '{"model":"gpt-4o","messages": []}'),
        ("{}", '{"model":"gpt-4o"}'),
        ("{ }", '{"model":"gpt-4o" }'),
        ('{"model": "o3"}', '{"model": "o3"}'),
        ('{"metadata": {"model": "x"}}', '{"model":"gpt-4o","metadata": {"model": "x"}}'),
        ('{"user": "model"}', '{"model":"gpt-4o","user": "model"}'),
        ("[1]", "[1]"),
    ],
)
def test_the_model_for_lines_that_name_none(put: Put, body: str, expected: str) -> None:
    (row,) = Source(put(line("a", body)).path, model="gpt-4o").rows()
    assert row.body.decode() == expected


@pytest.mark.parametrize(("name", "why"), [("missing.jsonl", "there is no such file"), (".", "it is a directory")])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    path = tmp_path / name
    for attempt in (Source(str(path)).check, lambda: list(Source(str(path)).rows())):
        with pytest.raises(InputUnreadable) as caught:
            attempt()
        assert str(caught.value) == f"cannot read {path}: {why}; name a file of requests, one JSON object a line"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_an_empty_file_has_no_rows(put: Put, content: bytes) -> None:
    assert list(put(content).rows()) == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_at_all_are_too_much(content: bytes) -> None:
    row = Source("x").row(3, content.replace(b"\n", b""))
    told = row.problem or ""
    with suppress(RequestInvalid):
        row.request()
    assert row.number == 3
    assert printable(told, 4000) == told


def test_every_row_is_in_one_shard_wherever_it_stands(put: Put) -> None:
    lines = [*(line(f"row-{number}") for number in range(300)), b"broken\n", BODY.encode() + b"\n"]
    whole = put(b"".join(lines))
    shards = [[row.id for row in replace(whole, shard=Shard(index, 4)).rows()] for index in range(4)]
    assert sorted(chain.from_iterable(shards)) == sorted(row.id for row in whole.rows())
    assert min(map(len, shards)) > 50
    turned = put(b"".join(reversed(lines)))
    again = [row.id for row in replace(turned, shard=Shard(2, 4)).rows()]
    named = [[name for name in each if name.startswith("row")] for each in (again, reversed(shards[2]))]
    assert named[0] == named[1]


@pytest.mark.parametrize(
    ("name", "pack", "problems"),
    [
        ("R.JSONL.GZ", gzip.compress, []),
        ("R.ZST", zstandard.compress, []),
        ("r.jsonl", gzip.compress, ["the file is packed (gz); name it so that it ends in .gz"]),
        ("r.jsonl", zstandard.compress, ["the file is packed (zst); name it so that it ends in .zst"]),
    ],
)
def test_a_packed_file_is_known_by_its_name_and_its_beginning(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes], problems: list[str]
) -> None:
    (tmp_path / name).write_bytes(pack(line("a")))
    found = [row.problem for row in Source(str(tmp_path / name)).rows()]
    assert [problem for problem in found if problem][:1] == problems


def test_what_can_be_no_input_is_said_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    remedy = "name a file of requests, one JSON object a line"
    long, loop = "x" * 300, tmp_path / "loop"
    loop.symlink_to(loop)
    for path, why in ((long, "File name too long"), (str(loop), "Too many levels of symbolic links")):
        with pytest.raises(InputUnreadable, match=f"^cannot read {path}: {why}; {remedy}$"):
            Source(path).check()
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputUnreadable, match=f"^cannot read standard input: it is closed; {remedy}$"):
        Source("-").check()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_blank_lines_are_counted_however_many_there_are(put: Put, suffix: str) -> None:
    """Around every length at which they are passed over many at a time, and across pieces of what is read."""
    content, number = b"", 0
    expected: list[tuple[int, str, int]] = []
    for blanks in (0, 63, 64, 65, 127, 128, 129, 200_000, 64, 300_000):
        blank = [b"\n", b"\r\n", b" \t\n"][blanks % 3]
        content += blank * blanks + line(f"after {number + blanks}") + b"   "
        number += blanks + 1
        expected.append((number, f"after {number - 1}", len(expected)))
    rows = put(gzip.compress(content, 1) if suffix else content, f"requests.jsonl{suffix}").rows()
    assert [(row.number, row.id, row.place) for row in rows] == expected


@pytest.mark.parametrize(
    ("name", "content", "problem", "hint"),
    [
        (
            "rows.csv",
            "id,text\n" + "1,hello\n" * 12_000,
            f"the line is not JSON: JSON is malformed: invalid character (byte 0); {SHAPE}",
            "; rows of a table go with --template",
        ),
        (
            "list.json",
            "[\n" + "  {\n  },\n" * 5_000 + "  {}\n]\n",
            f"the line is not a request: Expected `object`, got `array`; {SHAPE}",
            "; if it is a list of requests, jq -c '.[]' puts each on a line",
        ),
        (
            "pretty.json",
            '{\n    "custom_id": "a"\n  }\n' * 4_000,
            f"the line is not JSON: Input data was truncated; {SHAPE}",
            "; if it is JSON on several lines, jq -c puts it on one",
        ),
        (
            "texts.jsonl",
            '{"text": "hello"}\n' * 12_000,
            "the line has neither a body nor messages",
            '; a bare body is one of chat; others go as {"custom_id": ..., "url": "/v1/embeddings", "body": {...}}',
        ),
    ],
)
def test_a_file_of_anything_else_is_refused_at_once(put: Put, name: str, content: str, problem: str, hint: str) -> None:
    other = put(content.encode(), name)
    with pytest.raises(InputUnreadable) as caught:
        next(other.rows())
    why = "none of its first 10,000 lines is a request"
    assert str(caught.value) == f"cannot read {other.path}: {why}; line 1: {problem}{hint}"


def test_bad_lines_before_a_good_one_are_bad_lines(put: Put) -> None:
    rows = list(put(b"x\n" * 9_999 + line("a") + b"x\n" * 20_000).rows())
    assert [row.problem is None for row in rows] == [n == 9_999 for n in range(30_000)]


def test_bad_lines_are_not_held_back_at_any_size(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_HELD", 100_000)
    rows = list(put(line("a", '{"messages": []}') * 12_000).rows())
    assert len(rows) == 12_000


def test_rows_that_are_known_are_wanted_whatever_they_are(put: Put) -> None:
    """Of a file that was looked through, what is left may be bad lines alone."""
    rows = put(line("a") + b"x\n" * 12_000).rows(lambda place: place > 0)
    assert sum(row.problem is not None for row in rows) == 12_000
