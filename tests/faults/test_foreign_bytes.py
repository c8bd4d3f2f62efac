"""What others wrote, spoilt: every parser says so in words of ours or passes over it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from foreign import READERS, merges, reads_checkpoint, reads_journal, reads_settings, reads_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.errors import BadSettings
from ratelimit.settings import load_settings

NASTY = (
    *(b"0", b"-1", b"-0.5", b"1e308", b"1e999", b"NaN", b"Infinity", b"9" * 20, b"9" * 400, b"9" * 5_000),
    *(b'"0500%s"' % (b"0" * 5_000), b"18446744073709551616", b"-9223372036854775809", "\u0665".encode()),
    *(b"null", b"true", b"[]", b"{}", b'""', b'"', b"'", b"\\", b"=", b",", b":", b'"\\ud800"', b'"\\u0000"'),
    *(b"\x00", b"\x1b[2J", b"\x7f", b"\xff", b"\xc2\x85", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n"),
    *(
        b"[" * 3_000,
        b'{"a":' * 3_000,
        b"[" * 900 + b"1" + b"]" * 900,
        b"~nobody/a",
        b"a." * 3_000 + b"a",
        b"[" + b"a." * 900 + b"a]",
    ),
)


@st.composite
def spoilt(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Something right of which a few words have become something else."""
    words = re.findall(rb"[\w.]+|\s+|[^\w\s]", draw(st.sampled_from(seeds)))
    others = st.sampled_from(NASTY) | st.sampled_from(words) | st.binary(max_size=4)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(range(len(words))))
        words[at : at + draw(st.integers(0, 1))] = [draw(others)]
    return b"".join(words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


FOUND: tuple[tuple[Callable[[bytes], None], bytes], ...] = (
    (reads_stream, b'data: {"error": {"message": "no", "code": "0500%s"}}\n\n' % (b"0" * 5_000)),
    (reads_journal, b'{"sent": "a", "content": -1}\n'),
    (reads_journal, b'{"sent": "a", "content": 18446744073709551616}\n'),
    (merges, b'{"id": "b", "custom_id": "a", "response": null, "error": {"\xffmessage": "no"}}\n'),
    (reads_checkpoint, b'{"id": "-1", "custom_id": "a", "response": null, "error": {"message": "no"}}\n'),
    (reads_checkpoint, b'{"id": "%s", "custom_id": "a", "response": null, "error": {"message": "no"}}\n' % (b"f" * 17)),
    (reads_settings, b"a = " + b"9" * 5_000),
    (reads_settings, b"a = " + b"[" * 5_000),
    (reads_settings, b'[settings]\ntiers_file = "~nobody/a"'),
)


@pytest.mark.parametrize(("reader", "raw"), FOUND)
def test_what_was_found_raises_nothing_but_ours(reader: Callable[[bytes], None], raw: bytes, folder: Path) -> None:
    with chdir(folder):
        reader(raw)


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("ratelimit.toml", b"#" * 500_001, "it has 500,001 bytes, at most 500,000 are read"),
        ("ratelimit.toml", b"\n[a" + b".a" * 1_001 + b"]", "line 2 has more than 1,000 dots"),
        ("ratelimit.toml", b"a = " + b"[" * 5_000, "its values are nested too deeply"),
        (".env", b"#" * 100_001, "it has 100,001 bytes, at most 100,000 are read"),
    ],
)
def test_what_would_take_too_long_is_refused(name: str, raw: bytes, said: str, tmp_path: Path) -> None:
    with chdir(tmp_path):
        Path(name).write_bytes(raw)
        with pytest.raises(BadSettings) as caught:
            load_settings(tier="tier-1")
    assert str(caught.value) == f"{name} cannot be read ({said}): correct it, or remove it"


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@settings(max_examples=max(250, settings().max_examples), deadline=None)
@given(data=st.data())
def test_no_error_but_ours(reader: Callable[[bytes], None], folder: Path, data: st.DataObject) -> None:
    with chdir(folder):
        reader(data.draw(spoilt(READERS[reader])))
