"""A unit of work: the part of a source that one process reads as a whole."""

from dataclasses import dataclass

ROWS_PER_UNIT = 1_000


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a source that is read as a whole: one file, or the rows [start, stop) of one.

    `split` is set where the source itself gives it.
    """

    name: str
    start: int = 0
    stop: int = 0
    split: str | None = None


def in_rows(
    name: str, count: int, split: str | None = None, rows: int = ROWS_PER_UNIT
) -> list[Unit]:
    """Return units of at most `rows` rows that cover `count` rows."""
    return [Unit(name, start, min(start + rows, count), split) for start in range(0, count, rows)]
