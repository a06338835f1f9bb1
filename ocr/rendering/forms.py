"""Lines as forms, lists and bills have them: numbers, dates, sums and names between phrases.

Running text has few digits and hardly ever begins with one; what people scan does. Line i is a
function of (seed, i) and of the phrases.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import regex

from ocr.keyed import text_generator
from ocr.rendering.form_words import LATIN_WORDS, VOCABULARIES, Vocabulary
from ocr.rendering.scripts import Script

_ASCII = "0123456789"
# a grapheme cluster; Thai vowels stay beside their consonant
UNCUT = regex.compile(r"[\u0e40-\u0e44]?\X[\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46]*")


class Forms:
    """Lines of forms in one script, of phrases that are given."""

    def __init__(self, script: Script, phrases: Sequence[str], longest: int) -> None:
        self.script, self.phrases, self.longest = script, phrases, longest
        self.words = VOCABULARIES.get(script.name, Vocabulary())

    def line(self, seed: int, index: int) -> str:
        """Return line `index`, at most as long as the longest allowed."""
        random = text_generator("lipi: forms", seed, index)
        native = random.random() < 0.55
        text = self._shape(random)
        if native:
            text = _outside_latin(text, self.script.digits)
        if len(text) > self.longest:
            text = text[: self.longest].rpartition(" ")[0]
        return text

    def _shape(self, random: np.random.Generator) -> str:
        phrase = partial(self._phrase, random)
        number = partial(self._amount, random)
        shapes: tuple[Callable[[], str], ...] = (
            lambda: f"{self._item(random)} {phrase(60)}",
            lambda: f"{self._item(random)} {phrase(50)}",
            lambda: f"{self._item(random)} {phrase(40)} {self._sum(random)}",
            lambda: f"{phrase(40)} {self._sum(random)}",
            lambda: f"{phrase(30)} {self._date(random)}",
            lambda: self._date(random),
            lambda: self._code(random),
            number,
            lambda: f"{self._label(random)} {number()}",
            lambda: f"{phrase(30)} ({phrase(16)})",
            lambda: f"{phrase(24)}: {phrase(24)}",
            lambda: f"{phrase(30)} {self._code(random)} {phrase(20)}",
            lambda: f"{self._item(random)} {phrase(40)} {random.integers(1, 400)}",
            lambda: f"{self._label(random)} {self._code(random)} {phrase(30)}",
            lambda: f"{phrase(24)} {self._latin(random)} {phrase(24)}",
            lambda: f"{_of(random, self.words.titles or ('',))}{phrase(14)} {phrase(16)}",
            lambda: f"{phrase(20)}, {phrase(20)}-{phrase(12)}/{phrase(8)}",
            lambda: f"“{phrase(30)}” {_of(random, ('!', '?', '...', ';', '.'))}",
            lambda: " ".join(number() for _ in range(random.integers(2, 6))),
        )
        return " ".join(shapes[random.integers(len(shapes))]().split())

    def _phrase(self, random: np.random.Generator, longest: int) -> str:
        line = _of(random, self.phrases)
        wanted = int(random.integers(3, longest + 1))
        if " " in line and random.random() < 0.5:
            line = line.split(" ", 1)[1]
        text = ""
        for cluster in UNCUT.findall(line):
            if len(text) + len(cluster) > wanted:
                break
            text += cluster
        return text.strip() or line[:1]

    def _item(self, random: np.random.Generator) -> str:
        first, second = random.integers(1, 30), random.integers(1, 13)
        letter = _of(random, self.words.letters or "abc")
        return _of(
            random,
            (
                f"{first}.",
                f"{first}.",
                f"{first}.{second}",
                f"{first}.{second}",
                f"{first})",
                f"({first})",
                f"({letter})",
                f"{letter})",
                f"{letter}.",
                f"{first}.{second}.{random.integers(1, 9)}",
                f"{self._label(random)} {first}",
                "-",
                "•",
            ),
        )

    def _label(self, random: np.random.Generator) -> str:
        return _of(random, self.words.labels or ("No.",)) + _of(random, ("", "", ":", "."))

    def _amount(self, random: np.random.Generator) -> str:
        value = int(10 ** random.uniform(0, 7))
        kind = random.integers(6)
        if kind == 0:
            return f"{value:,}.{random.integers(100):02d}"
        if kind == 1:
            return f"{random.uniform(0, 100):.{random.integers(1, 3)}f}%"
        if kind == 2:
            return f"{value}"
        return f"{value:,}"

    def _sum(self, random: np.random.Generator) -> str:
        value = int(10 ** random.uniform(0, 6.9))
        unit = _of(random, self.words.units or ("",))
        text = f"{value:,} {unit}" if random.random() < 0.8 else f"{self.words.currency}{value:,}"
        if self.words.number_words and random.random() < 0.6:
            text += f" ({self.words.number_words(value)}{_of(random, ('', unit))})"
        return text

    def _date(self, random: np.random.Generator) -> str:
        day, month = random.integers(1, 32), random.integers(1, 13)
        year = random.integers(1900, 2035) + self.words.years_later * (random.random() < 0.8)
        name = _of(random, self.words.months or ("/",))
        label = self._label(random)
        return _of(
            random,
            (
                f"{day} {name} {year}",
                f"{day} {name} {self.words.era} {year}",
                f"{day}/{month}/{year}",
                f"{day:02d}/{month:02d}/{year}",
                f"{day:02d}-{month:02d}-{year}",
                f"{name} {year}",
                f"{label} {day} {name}",
                f"{name} {day}, {year}",
                f"{day}.{month}.{year % 100:02d}",
            ),
        )

    def _code(self, random: np.random.Generator) -> str:
        def figures(count: int) -> str:
            return "".join(map(str, random.integers(10, size=count)))

        letters = "".join(chr(65 + letter) for letter in random.integers(26, size=2))
        low, hour = random.integers(1, 500), random.integers(24)
        return _of(
            random,
            (
                f"0{figures(1)}-{figures(3)}-{figures(4)}",
                f"0{figures(9)}",
                f"+{figures(2)} {figures(10)}",
                f"{figures(1)}-{figures(4)}-{figures(5)}-{figures(2)}-{figures(1)}",
                f"{figures(5)}",
                f"{low}/{figures(4)}",
                f"{low}-{low + random.integers(1, 90)}",
                f"{figures(2)}/{figures(2)}",
                f"{hour:02d}:{figures(2)}",
                f"{hour}.{random.integers(60):02d}",
                f"1:{figures(3)}",
                f"{letters}-{figures(4)}",
                f"{letters}{figures(3)}",
                f"#{figures(3)}",
                f"{figures(3)} x {figures(2)}",
                f"{figures(1)} + {figures(1)} = {figures(2)}",
                f"[{low}]",
                f"{figures(6)}",
            ),
        )

    def _latin(self, random: np.random.Generator) -> str:
        words = [_of(random, LATIN_WORDS) for _ in range(random.integers(1, 4))]
        kind = random.integers(5)
        if kind == 0:
            return f"({' '.join(words)})"
        if kind == 1:
            letters = random.integers(26, size=random.integers(3, 9))
            return "".join(chr((97, 65)[int(random.random() < 0.3)] + letter) for letter in letters)
        if kind == 2:
            return f"{words[0].strip('.').lower()}@{words[-1].strip('.').lower()}.com"
        return " ".join(words)


def _outside_latin(text: str, digits: str) -> str:
    """Return the text with the digits of a script, but for words that have Latin letters."""
    written = str.maketrans(_ASCII, digits)
    return " ".join(
        word if regex.search(r"\p{Latin}", word) else word.translate(written)
        for word in text.split(" ")
    )


def _of(random: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(random.integers(len(choices)))]
