"""The differences between a reading and its reference, by the edits of the grapheme CER."""

from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rapidfuzz.distance import Levenshtein

from ocr.text import graphemes, normalise
from trainers.report.formats import names, visible

Kind = Literal["same", "wrong", "missing", "extra", "gap"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of equal text, or one grapheme cluster that differs.

    A `gap` is the position of a missing cluster in the reading.
    """

    kind: Kind
    text: str
    note: str = ""


def mark(reference: str, reading: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Return the pieces of the reference and of the reading, both normalised as for scoring.

    `wrong` is in both, `missing` in the reference (a `gap` in the reading), `extra` in the reading.
    """
    expected, read = graphemes(normalise(reference)), graphemes(normalise(reading))
    upper: list[Piece] = []
    lower: list[Piece] = []
    for block in Levenshtein.opcodes(expected, read):
        wanted = expected[block.src_start : block.src_end]
        found = read[block.dest_start : block.dest_end]
        if block.tag == "equal":
            upper.append(Piece("same", "".join(wanted)))
            lower.append(Piece("same", "".join(found)))
        elif block.tag == "replace":
            upper += [
                Piece("wrong", visible(w), f"read as {names(f)}")
                for w, f in zip(wanted, found, strict=True)
            ]
            lower += [
                Piece("wrong", visible(f), f"expected {names(w)}")
                for w, f in zip(wanted, found, strict=True)
            ]
        elif block.tag == "delete":
            upper += [Piece("missing", visible(w), f"not read: {names(w)}") for w in wanted]
            lower += [Piece("gap", "", f"not read: {names(w)}") for w in wanted]
        else:
            lower += [Piece("extra", visible(f), f"not there: {names(f)}") for f in found]
    return _joined(upper), _joined(lower)


def _joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Join neighbouring equal stretches, so that letters are shaped across all but errors."""
    joined: list[Piece] = []
    for kind, run in groupby(pieces, key=lambda piece: piece.kind):
        stretch = list(run)
        joined += (
            [Piece("same", "".join(piece.text for piece in stretch))] if kind == "same" else stretch
        )
    return tuple(joined)
