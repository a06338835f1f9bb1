"""The prefix beam search of a CTC network with a character language model.

Prefixes are nodes of a tree: a column costs the same at the start and at the end of a long line.
T: output columns, K: classes.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ocr.alphabet import BLANK

# less likely classes of a column do not extend a beam: three times as fast as -9, with the same
# errors
_LEAST_LOG_PROB = -6.0
_MOST_CLASSES = 16  # tried in a column; the reading of a network that has learnt nothing is bounded
_SURE_BLANK = math.log(0.999)  # columns so sure of the blank extend no beam
_BEHIND = 7.0  # prefixes so far behind the best are given up: half the time, no more errors
_NEVER = -math.inf

LanguageScore = Callable[[str, str], float]
"""Weighted ln p(character | text before); the character "" ends the text."""


class _Prefix:
    """A prefix: log probabilities of ending in a blank and in its last class, language score.

    `next_blank` and `next_letter` are those after the column at hand.
    """

    __slots__ = (
        "before",
        "blank",
        "index",
        "language",
        "letter",
        "longer",
        "next_blank",
        "next_letter",
        "seen",
        "text",
    )

    def __init__(self, before: "_Prefix | None", index: int, text: str, language: float) -> None:
        self.before, self.index, self.text, self.language = before, index, text, language
        self.blank = self.letter = self.next_blank = self.next_letter = _NEVER
        self.longer: dict[int, _Prefix] = {}
        self.seen = -1

    @property
    def classes(self) -> list[int]:
        """The classes of the prefix, first to last."""
        found: list[int] = []
        prefix: _Prefix | None = self
        while prefix is not None and prefix.before is not None:
            found.append(prefix.index)
            prefix = prefix.before
        return found[::-1]


class BeamSearch:
    """The best prefix of a beam search (Hannun et al. 2014, alg. 1).

    Score: log p(prefix | image) + language score + length_bonus × length. `characters`: of the
    classes 1 to K - 1.
    """

    def __init__(
        self,
        characters: tuple[str, ...],
        width: int,
        length_bonus: float,
        language_score: LanguageScore | None,
    ) -> None:
        self._characters, self._width, self._bonus = characters, width, length_bonus
        self._language_score = language_score

    def best(self, log_probs_TK: NDArray[np.float32]) -> list[int]:
        """Return the classes of the best prefix; log_probs_TK: log probabilities [T, K]."""
        root = _Prefix(None, BLANK, "", 0.0)
        root.blank = 0.0
        beams = [root]
        columns = log_probs_TK.tolist()
        for number, classes in enumerate(_tried(log_probs_TK)):
            beams = self._pruned(self._extended(beams, columns[number], classes, number))
        return max(beams, key=self._final).classes

    def _final(self, prefix: _Prefix) -> float:
        ending = self._language_score(prefix.text, "") if self._language_score else 0.0
        return _score(prefix) + ending

    def _extended(
        self, beams: list[_Prefix], column: list[float], classes: list[int], number: int
    ) -> list[_Prefix]:
        """Return the prefixes after one more column, in the order in which they were met.

        A longer prefix far behind the best so far is not asked for its language score.
        """
        met: list[_Prefix] = []
        blank, best = column[BLANK], _NEVER
        for prefix in beams:
            total = _add(prefix.blank, prefix.letter)
            stays = prefix.letter + column[prefix.index]
            _meet(prefix, number, met, total + blank, stays)
            best = max(best, max(total + blank, stays) + prefix.language)
            for index in classes:
                came = prefix.blank if index == prefix.index else total
                if came == _NEVER:
                    continue
                longer = prefix.longer.get(index)
                if longer is None:
                    if came + column[index] + prefix.language + self._bonus < best - _BEHIND:
                        continue
                    longer = prefix.longer[index] = self._longer(prefix, index)
                _meet(longer, number, met, _NEVER, came + column[index])
                best = max(best, came + column[index] + longer.language)
        for prefix in met:
            prefix.blank, prefix.letter = prefix.next_blank, prefix.next_letter
        return met

    def _pruned(self, beams: list[_Prefix]) -> list[_Prefix]:
        """Return the best prefixes, `width` at most."""
        if len(beams) == 1:
            return beams
        scores = [_score(prefix) for prefix in beams]
        least = max(scores) - _BEHIND
        if len(beams) > self._width:
            least = max(least, sorted(scores, reverse=True)[self._width - 1])
        kept = [prefix for prefix, score in zip(beams, scores, strict=True) if score >= least]
        return kept[: self._width]

    def _longer(self, prefix: _Prefix, index: int) -> _Prefix:
        character = self._characters[index - 1]
        language = prefix.language + self._bonus
        if self._language_score:
            language += self._language_score(prefix.text, character)
        return _Prefix(prefix, index, prefix.text + character, language)


def _tried(log_probs_TK: NDArray[np.float32]) -> list[list[int]]:
    """Return the classes of each column that extend a beam."""
    likely = log_probs_TK > _LEAST_LOG_PROB
    for column in np.flatnonzero(likely.sum(1) > _MOST_CLASSES):  # one that says nothing
        likely[column, np.argsort(-log_probs_TK[column], kind="stable")[_MOST_CLASSES:]] = False
    likely[log_probs_TK[:, BLANK] > _SURE_BLANK] = False
    likely[:, BLANK] = False
    tried: list[list[int]] = [[] for _ in range(len(likely))]
    for column, index in zip(*(places.tolist() for places in np.nonzero(likely)), strict=True):
        tried[column].append(index)
    return tried


def _meet(prefix: _Prefix, number: int, met: list[_Prefix], blank: float, letter: float) -> None:
    """Add a way to `prefix` in column `number`."""
    if prefix.seen == number:
        prefix.next_blank = _add(prefix.next_blank, blank)
        prefix.next_letter = _add(prefix.next_letter, letter)
    else:
        prefix.seen, prefix.next_blank, prefix.next_letter = number, blank, letter
        met.append(prefix)


def _score(prefix: _Prefix) -> float:
    return _add(prefix.blank, prefix.letter) + prefix.language


def _add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == _NEVER else a + math.log1p(math.exp(b - a))
