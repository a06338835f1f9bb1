"""Lexicon correction: an unlisted word becomes the only listed word a single edit away."""

import gzip
from collections import Counter
from collections.abc import Iterable

from rapidfuzz.distance import Levenshtein

from ocr.recognizers.ctc.language_model import MAX_UNPACKED_BYTES
from ocr.text import normalise
from ocr.unpacking import gunzipped


class Lexicon:
    """The known words; `corrected` leaves undecidable words alone."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(normalise(word) for word in words)
        self._near: dict[str, list[str]] = {}
        for word in sorted(self.words):
            for shorter in _one_less(word):
                self._near.setdefault(shorter, []).append(word)

    def corrected(self, text: str) -> str:
        """Replace each unknown word by the only listed word one edit away.

        Words of fewer than four characters stay, and so do words with none or several such
        neighbours.
        """
        return " ".join(self._word(word) for word in text.split(" "))

    def to_bytes(self) -> bytes:
        """Return gzipped UTF-8, a word a line, sorted."""
        return gzip.compress("\n".join(sorted(self.words)).encode(), mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Lexicon":
        """Return the lexicon that `to_bytes` wrote."""
        return cls(gunzipped(content, MAX_UNPACKED_BYTES).decode().split("\n"))

    @classmethod
    def of_texts(cls, texts: Iterable[str], least_count: int = 1) -> "Lexicon":
        """Return the words between spaces that occur at least so often in the texts."""
        counts = Counter(word for text in texts for word in text.split())
        return cls(word for word, count in counts.items() if count >= least_count)

    def _word(self, word: str) -> str:
        if word in self.words or len(word) < 4:
            return word
        candidates = {
            near for shorter in (word, *_one_less(word)) for near in self._near.get(shorter, ())
        }
        candidates |= {shorter for shorter in _one_less(word) if shorter in self.words}
        close = [
            near for near in candidates if Levenshtein.distance(word, near, score_cutoff=1) == 1
        ]
        return close[0] if len(close) == 1 else word


def _one_less(word: str) -> set[str]:
    """Yield the word without each of its characters in turn, and the word itself."""
    return {word[:index] + word[index + 1 :] for index in range(len(word))} | {word}
