"""Text ↔ classes of a CTC network: class 0 is the blank, class i the i-th character."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ocr.errors import UserError
from ocr.text import describe_character

BLANK = 0


@dataclass(frozen=True)
class Alphabet:
    """The characters (code points of normalised text) of a network, in a fixed order."""

    characters: tuple[str, ...]

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "Alphabet":
        """Return all characters of the texts, by code point; meant for the training split alone."""
        return cls(tuple(sorted({character for text in texts for character in text})))

    @cached_property
    def _class_of(self) -> dict[str, int]:
        return {character: index for index, character in enumerate(self.characters, start=1)}

    def __len__(self) -> int:
        """Return the number of classes, the blank included."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Return the classes of a text; UserError lists the characters that the alphabet lacks."""
        missing = self.unknown([text])
        if missing:
            raise UserError(f"{text!r}: not in the alphabet: {_listed(missing)}")
        return [self._class_of[character] for character in text]

    def encode_known(self, text: str) -> list[int]:
        """Return the classes of the characters in the alphabet, without the others.

        A reading can only miss the characters that are left out.
        """
        return [self._class_of[character] for character in text if character in self._class_of]

    def decode(self, classes: Sequence[int]) -> str:
        """Return the text of classes that hold neither blanks nor CTC repeats."""
        return "".join(self.characters[index - 1] for index in classes)

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """Count the characters of the texts that the alphabet cannot write."""
        return Counter(
            character for text in texts for character in text if character not in self._class_of
        )

    def require(self, texts: Iterable[str], where: str) -> None:
        """Raise UserError with code point, name and count of each character that is missing."""
        missing = self.unknown(texts)
        if missing:
            raise UserError(
                f"{where}: characters outside the alphabet: {_listed(missing)}; add them to "
                "model.alphabet or fix the labels"
            )


def _listed(missing: Counter[str]) -> str:
    return ", ".join(
        f"{describe_character(character)} ({count}×)"
        for character, count in missing.most_common(10)
    )
