"""Which rows go into which batch file, and which files into the queue. Pure: numbers in, numbers out.

Rows are cut into pieces, in the order of the input. The queue is filled first-fit decreasing: the largest piece that
has room goes first. Where no whole piece has room, the largest is split at the room that is left, so that what stays
free is less than a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_ROWS = 50_000
MOST_BYTES = 190_000_000  # of 200 MB, whichever megabytes are meant
MOST_INPUTS = 50_000


@dataclass(frozen=True, slots=True)
class Caps:
    """What one batch file may hold at most."""

    rows: int = MOST_ROWS
    bytes: int = MOST_BYTES
    inputs: int = MOST_INPUTS
    tokens: float = float("inf")


class Sizes(Protocol):
    """What is known of the rows of one model and endpoint, by their number."""

    @property
    def tokens(self) -> Sequence[int]:
        """Input tokens of each."""

    @property
    def lengths(self) -> Sequence[int]:
        """Bytes of each."""

    @property
    def inputs(self) -> Sequence[int]:
        """Texts to embed in each; nothing for other endpoints."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that may become one batch."""

    group: int
    rows: Sequence[int]
    tokens: int


def cut(group: int, rows: Sequence[int], sizes: Sizes, caps: Caps) -> list[Piece]:
    """Cut rows into as few pieces as their order allows; a row above a cap of tokens is a piece of its own."""
    pieces: list[Piece] = []
    start = tokens = length = inputs = 0
    for place, row in enumerate(rows):
        if place > start and (
            place - start >= caps.rows
            or tokens + sizes.tokens[row] > caps.tokens
            or length + sizes.lengths[row] > caps.bytes
            or inputs + sizes.inputs[row] > caps.inputs
        ):
            pieces.append(Piece(group, rows[start:place], tokens))
            start, tokens, length, inputs = place, 0, 0, 0
        tokens += sizes.tokens[row]
        length += sizes.lengths[row]
        inputs += sizes.inputs[row]
    if start < len(rows):
        pieces.append(Piece(group, rows[start:], tokens))
    return pieces


def fill(waiting: list[Piece], room: float, groups: Sequence[Sizes], *, most: int, least: float = 0.0) -> list[Piece]:
    """Take at most `most` pieces that fit into the room out of those that wait, and return them.

    Room of less than `least` is worth no split: it would make ever smaller files.
    """
    waiting.sort(key=lambda piece: -piece.tokens)
    chosen: list[Piece] = []
    left: list[Piece] = []
    for piece in waiting:
        if piece.tokens <= room and len(chosen) < most:
            room -= piece.tokens
            chosen.append(piece)
        else:
            left.append(piece)
    if len(chosen) < most and room >= least:
        for number, piece in enumerate(left):
            first, rest = split(piece, room, groups[piece.group])
            if first:
                chosen.append(first)
                left[number] = rest
                break
    waiting[:] = left
    return chosen


def split(piece: Piece, room: float, sizes: Sizes) -> tuple[Piece | None, Piece]:
    """Return as many of the first rows as have room, and the rest, which is never empty where the piece is too big."""
    taken, tokens = 0, 0
    for row in piece.rows:
        if tokens + sizes.tokens[row] > room:
            break
        tokens += sizes.tokens[row]
        taken += 1
    if not taken or taken == len(piece.rows):
        return None, piece
    first = Piece(piece.group, piece.rows[:taken], tokens)
    return first, Piece(piece.group, piece.rows[taken:], piece.tokens - tokens)


def divided(piece: Piece, count: int, sizes: Sizes) -> tuple[Piece, Piece]:
    """Return so many of the first rows, and the rest."""
    tokens = sum(sizes.tokens[row] for row in piece.rows[:count])
    first = Piece(piece.group, piece.rows[:count], tokens)
    return first, Piece(piece.group, piece.rows[count:], piece.tokens - tokens)


def joined(pieces: Sequence[Piece], most: int) -> list[Piece]:
    """Return pieces of the same rows, where those of a group that are small are joined to so many rows at most."""
    made: list[Piece] = []
    for piece in sorted(pieces, key=lambda each: (each.group, len(each.rows))):
        last = made[-1] if made else None
        if last and last.group == piece.group and len(last.rows) + len(piece.rows) <= most:
            made[-1] = Piece(piece.group, [*last.rows, *piece.rows], last.tokens + piece.tokens)
        else:
            made.append(piece)
    return made
