"""PaddleOCR's character dictionaries: one entry a line, entries of one or several characters."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import regex

from ocr.errors import UserError
from ocr.text import decoded, describe_character, graphemes, normalise

_KEPT = (" ", "\u200c", "\u200d")  # entries that normalising would empty


@dataclass(frozen=True)
class Dictionary:
    """The normalised entries in their order; `oddities` are lines of the file that need a look."""

    entries: tuple[str, ...]
    oddities: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path, use_space_char: bool = False) -> "Dictionary":
        """Read a dictionary file; UserError when it cannot be read or holds no entry."""
        try:
            lines = decoded(path.read_bytes()).split("\n")
        except OSError as problem:
            raise UserError(
                f"{path}: {problem.strerror}; a dictionary has one entry a line"
            ) from None
        except UnicodeDecodeError as problem:
            raise UserError(f"{path}: not UTF-8: {problem}") from None
        entries, oddities = _entries(path, lines[:-1] if lines[-1] == "" else lines)
        if not entries:
            raise UserError(f"{path}: no entry; a dictionary has one entry a line")
        return cls(
            (*entries, " ") if use_space_char and " " not in entries else tuple(entries),
            tuple(oddities),
        )

    def spell(self, text: str) -> list[str]:
        """Split a text into entries, longest first from the left.

        Characters that no entry begins with are left out; `missing` lists them.
        """
        return [match[0] for match in self._pattern.finditer(text)]

    def missing(self, text: str) -> str:
        """Return the characters that no entry spells, as code points with names; else ""."""
        return ", ".join(
            describe_character(character)
            for character in dict.fromkeys(self._pattern.sub("", text))
        )

    @cached_property
    def _pattern(self) -> "regex.Pattern[str]":
        return regex.compile(
            "|".join(
                map(regex.escape, sorted(self.entries, key=lambda entry: (-len(entry), entry)))
            )
        )


def _entries(path: Path, lines: list[str]) -> tuple[list[str], list[str]]:
    entries: dict[str, int] = {}
    oddities: list[str] = []
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        entry = line if line in _KEPT else normalise(line)
        if not entry:
            oddities.append(f"{path}:{number}: an empty line is no entry")
        elif entry in entries:
            oddities.append(f"{path}:{number}: {entry!r} repeats line {entries[entry]}")
        else:
            entries[entry] = number
    joined = [entry for entry in entries if len(graphemes(entry)) > 1]
    # where many entries are several characters, that is intended
    if len(joined) <= max(2, len(entries) // 50):
        oddities += [
            f"{path}:{entries[entry]}: {entry!r} is {len(graphemes(entry))} written units; "
            "are two entries joined on one line?"
            for entry in joined
        ]
    return list(entries), oddities
