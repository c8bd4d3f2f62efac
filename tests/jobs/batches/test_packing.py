"""Cutting rows into files, and filling a queue with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.jobs.batches.packing import Caps, Piece, cut, divided, fill, joined, split


@dataclass
class Rows:
    tokens: list[int]
    lengths: list[int] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lengths = self.lengths or [1] * len(self.tokens)
        self.inputs = self.inputs or [0] * len(self.tokens)


def places(pieces: list[Piece]) -> list[int]:
    return [row for piece in pieces for row in piece.rows]


numbers = st.lists(st.integers(0, 30), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30), st.integers(0, 30)), max_size=40), st.data())
def test_every_row_is_in_one_piece_and_every_piece_within_its_caps(
    given_rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    sizes = Rows(*(list(column) for column in zip(*given_rows, strict=True))) if given_rows else Rows([])
    most = st.integers(1, 60)
    caps = Caps(data.draw(most), data.draw(most), data.draw(most), data.draw(most))
    pieces = cut(0, range(len(given_rows)), sizes, caps)
    assert places(pieces) == list(range(len(given_rows)))
    for piece in pieces:
        assert piece.tokens == sum(sizes.tokens[row] for row in piece.rows)
        assert len(piece.rows) <= caps.rows
        if len(piece.rows) > 1:
            assert piece.tokens <= caps.tokens
            assert sum(sizes.lengths[row] for row in piece.rows) <= caps.bytes
            assert sum(sizes.inputs[row] for row in piece.rows) <= caps.inputs


def test_a_file_ends_where_its_cap_does() -> None:
    rows = Rows([10] * 5, [100] * 5, [3] * 5)
    for caps in (Caps(rows=2), Caps(bytes=200), Caps(inputs=6), Caps(tokens=20)):
        assert [list(piece.rows) for piece in cut(0, range(5), rows, caps)] == [[0, 1], [2, 3], [4]]


@settings(max_examples=80, deadline=None)
@given(numbers, st.integers(1, 60), st.integers(0, 200), st.integers(1, 9))
def test_filling_loses_no_row_and_never_takes_more_than_there_is_room(
    tokens: list[int], size: int, room: int, most: int
) -> None:
    rows = Rows(tokens)
    waiting = cut(0, range(len(tokens)), rows, Caps(tokens=size))
    chosen = fill(waiting, room, [rows], most=most)
    assert sum(piece.tokens for piece in chosen) <= room
    assert len(chosen) <= most
    assert sorted(places(chosen) + places(waiting)) == list(range(len(tokens)))
    left = room - sum(piece.tokens for piece in chosen)
    if len(chosen) < most:  # then nothing that waits would have had room, not even the first row of any
        assert all(piece.tokens > left for piece in waiting)


def test_the_largest_that_fits_goes_first_and_the_rest_of_the_room_is_filled_with_part_of_another() -> None:
    rows = Rows([50, 10, 10, 30, 20])
    waiting = [Piece(0, [0], 50), Piece(0, [1, 2], 20), Piece(0, [3], 30), Piece(0, [4], 20)]
    chosen = fill(waiting, 90, [rows], most=9)
    assert [list(piece.rows) for piece in chosen] == [[0], [3], [1]]
    assert [list(piece.rows) for piece in waiting] == [[2], [4]]


def test_too_little_room_is_left_alone() -> None:
    rows = Rows([10, 10])
    waiting = [Piece(0, [0, 1], 20)]
    assert fill(waiting, 15, [rows], most=9, least=16) == []
    assert waiting == [Piece(0, [0, 1], 20)]
    assert fill(waiting, 16, [rows], most=9, least=16) == [Piece(0, [0], 10)]


def test_pieces_are_divided_by_rows_and_joined_again() -> None:
    first, rest = divided(Piece(0, [3, 1, 2], 60), 1, Rows([0, 10, 20, 30]))
    assert (first, rest) == (Piece(0, [3], 30), Piece(0, [1, 2], 30))
    assert joined([first, Piece(1, [0], 7), rest], 3) == [Piece(0, [3, 1, 2], 60), Piece(1, [0], 7)]
    assert joined([rest, first], 2) == [first, rest]


def test_what_cannot_be_split_stays_whole() -> None:
    piece = Piece(0, [0, 1], 20)
    assert split(piece, 9, Rows([10, 10])) == (None, piece)
    assert split(piece, 20, Rows([10, 10])) == (None, piece)
