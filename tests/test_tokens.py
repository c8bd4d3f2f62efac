from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.limits import tokens
from ratelimit.limits.content import utf8_length

ENCODINGS: tuple[tokens.Encoding, ...] = ("o200k_base", "cl100k_base")
WORDS = st.lists(st.sampled_from(["a", "the", "HTTPServer", "quick", "Dogs", "over"]), min_size=40, max_size=200)


@pytest.mark.parametrize(
    ("text", "o200k", "cl100k"),
    [  # the first four from the vendor's cookbook, "How to count tokens with tiktoken"
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 8, 9),
        ("hello world", 2, 2),
        ("", 0, 0),
    ],
)
def test_known_texts(text: str, o200k: int, cl100k: int) -> None:
    assert tokens.count(text, "o200k_base") == o200k
    assert tokens.count(text, "cl100k_base") == cl100k


def test_ids_are_the_vendors() -> None:
    assert tokens.load("cl100k_base")("tiktoken is great!") == [83, 1609, 5963, 374, 2294, 0]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_control_tokens_in_a_text_are_plain_text(encoding: tokens.Encoding) -> None:
    assert tokens.count("<|endoftext|>", encoding) > 1


def test_half_a_surrogate_pair_counts_as_a_replacement_character() -> None:
    assert tokens.count("\ud800", "o200k_base") == tokens.count("\ufffd", "o200k_base") == 1


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200), st.sampled_from(ENCODINGS))
def test_never_more_tokens_than_bytes(text: str, encoding: tokens.Encoding) -> None:
    assert tokens.count(text, encoding) <= utf8_length(text)


@pytest.mark.parametrize(("letter", "expected"), [("a", 125_000), ("あ", 1_000_000)])
def test_texts_above_the_librarys_bounds_count(letter: str, expected: int) -> None:
    assert tokens.count(letter * 1_000_000, "o200k_base") == expected


@settings(deadline=None, max_examples=40)
@given(WORDS, st.sampled_from(ENCODINGS))
def test_a_cut_at_a_seam_changes_no_count(words: list[str], encoding: tokens.Encoding) -> None:
    text = " ".join(words)
    whole = tokens.count(text, encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_PIECE", 37)
        patch.setattr(tokens, "_LOOKBACK", 30)
        pieces = list(tokens._pieces(text))
        assert tokens.count(text, encoding) == whole
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 37
    assert all(piece.startswith(" ") for piece in pieces[1:])


def test_a_text_without_seams_is_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_PIECE", 10)
    assert list(tokens._pieces("x" * 25)) == ["x" * 10, "x" * 10, "x" * 5]


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("o4-mini", "o200k_base"),
        ("gpt-5.4", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("ft:gpt-3.5-turbo:acme::abc", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("llama-3.3-70b", None),
        ("", None),
    ],
)
def test_the_family_decides_the_encoding(model: str, encoding: str | None) -> None:
    assert tokens.encoding_of(model) == encoding


def test_the_library_loads_with_the_first_count_and_without_a_warning() -> None:
    program = (
        "import sys; from ratelimit.limits import charge, tokens\n"
        "size = charge.measure({'model': 'gpt-4o', 'messages': [{'role': 'user', 'content': 'hello'}]})\n"
        "charge.candidates(size); charge.check(size, None, None); print('bpe_openai' in sys.modules)\n"
        "charge.charge(size, 'exact'); print('bpe_openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")
