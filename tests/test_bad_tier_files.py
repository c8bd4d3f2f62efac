"""What each kind of bad file of limits is told: file, table, key, and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_tier_files import BAD
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import BadTable
from ratelimit.limits.tiers import load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ratelimit.toml"


def read(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    load(file)


def refusal(file: Path, text: str) -> str:
    with pytest.raises(BadTable) as refused:
        read(file, text)
    assert refused.value.exit_code == 2
    return str(refused.value)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_told_where_and_what_to_write(file: Path, kind: str) -> None:
    text, message = BAD[kind]
    assert refusal(file, text + "\n") == f"{file}{message}"


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"# caf\xe9\n")
    with pytest.raises(BadTable) as refused:
        load(file)
    assert str(refused.value) == f"{file}: byte 6 is not UTF-8; save the file with the encoding UTF-8"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadTable) as refused:
        load(tmp_path / "no\nsuch.toml")
    assert str(refused.value) == (
        f"{tmp_path}/no\\nsuch.toml: there is no such file; check the path, or leave the setting out"
    )


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(BadTable) as refused:
        load(tmp_path)
    assert str(refused.value) == f"{tmp_path}: this is a directory; name the TOML file in it"


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    with pytest.raises(BadTable) as refused:
        load(loop)
    assert str(refused.value) == (
        f"{loop}: it cannot be read (Too many levels of symbolic links); see that this user may read it"
    )


CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="'")
VALUES = st.recursive(
    st.one_of(
        st.booleans().map(lambda each: str(each).lower()),
        st.integers(-3, 10**13).map(str),
        st.floats().map(repr),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="'"), max_size=8).map(
            "'{}'".format
        ),
        st.sampled_from(["'none'", "'not supported'", "2026-11-21", "'gpt-4o'", "'http://x'"]),
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
    max_leaves=4,
)
KEYS = """
models providers sources settings x gpt-4o free tier-1 tier-9 rpm tpm batch_queue limits tiers prices input output
snapshots aliases provider base_url text as_of grade sizes reasoning long_context_of long_context_over notes
"""
LINES = st.tuples(st.lists(st.sampled_from(KEYS.split()), min_size=1, max_size=5), VALUES).map(
    lambda line: f"{'.'.join(line[0])} = {line[1]}\n"
)


@settings(deadline=None)
@given(st.lists(LINES, max_size=4).map("".join))
def test_any_file_is_a_table_or_is_told_what_is_wrong_in_one_printable_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    try:
        read(file, text)
    except BadTable as refused:
        told = str(refused)
    else:
        return
    assert told.isprintable()
    assert told.startswith(str(file))
