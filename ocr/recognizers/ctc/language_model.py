"""A character n-gram language model with Witten–Bell smoothing, trained on a data set's texts."""

import gzip
import math
from collections import Counter
from collections.abc import Iterable
from functools import cached_property, lru_cache

from ocr.unpacking import gunzipped

MAX_UNPACKED_BYTES = 64_000_000  # 20 times the largest that ships
_START, _END = "\x02", "\x03"
# cached probabilities; bounded, so that a server that reads for weeks stays small
_REMEMBERED = 1 << 18
_DIGIT, _LOG_TEN, _ONE_DIGIT = "0", math.log(10), "one_digit"
_MOST_TIMES = 50  # most repetitions of new texts beside those of the earlier model


class CharacterModel:
    """p(character | the characters before it).

    `counts` holds every n-gram of up to `order` characters, ends of texts included. With
    `one_digit` all decimal digits of all scripts are one character, of which each has a tenth:
    which number follows is for the image to say.
    """

    def __init__(self, order: int, counts: dict[str, int], one_digit: bool = False) -> None:
        self.order, self.counts, self.one_digit = order, counts, one_digit
        self._log_prob = lru_cache(_REMEMBERED)(self._log_prob_after)

    @classmethod
    def trained(
        cls, texts: Iterable[str], order: int = 5, least_count: int = 1, one_digit: bool = True
    ) -> "CharacterModel":
        """Return a model of the texts, each counted as often as it is given.

        N-grams of three and more characters with fewer than `least_count` occurrences are left out.
        """
        return cls(order, _pruned(_counted(texts, order, one_digit), least_count), one_digit)

    def with_texts(self, texts: Iterable[str], least_count: int = 1) -> "CharacterModel":
        """Return this model and one of the texts together.

        The texts are repeated until they weigh half of the earlier ones, at most 50 times. Without
        a limit, a dozen corrected lines cost a recogniser 0.2 points on its former data. It also
        read other lines worse than with 50 repetitions (docs/results.md).
        """
        others = _counted(texts, self.order, self.one_digit)
        ends, others_ends = self.counts.get(_END, 0), others.get(_END, 0)
        times = min(_MOST_TIMES, max(1, ends // (2 * others_ends))) if others_ends else 0
        counts = Counter(self.counts) + Counter(
            {gram: times * count for gram, count in others.items()}
        )
        return CharacterModel(self.order, _pruned(counts, least_count), self.one_digit)

    def log_prob(self, context: str, character: str) -> float:
        """Return ln p(character | last `order` - 1 characters of the context); "" ends the text."""
        return self._log_prob(context[1 - self.order :] if self.order > 1 else "", character)

    def _log_prob_after(self, context: str, character: str) -> float:
        digit = self.one_digit and character.isdecimal()
        if self.one_digit:
            context, character = _one_digit(context), _DIGIT if digit else character
        padded = (_START * (self.order - 1) + context)[1 - self.order :] if self.order > 1 else ""
        return math.log(self._prob(padded, character or _END)) - (_LOG_TEN if digit else 0.0)

    def to_bytes(self) -> bytes:
        """Return gzipped UTF-8, equal for equal models: order, then n-gram TAB count.

        The order has `one_digit` after it where digits are one character.
        """
        lines = [
            f"{self.order} {_ONE_DIGIT}" if self.one_digit else str(self.order),
            *(f"{gram}\t{count}" for gram, count in sorted(self.counts.items())),
        ]
        return gzip.compress("\n".join(lines).encode(), mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes) -> "CharacterModel":
        """Return the model that `to_bytes` wrote."""
        head, *lines = gunzipped(content, MAX_UNPACKED_BYTES).decode().split("\n")
        order, _, kind = head.partition(" ")
        return cls(
            int(order),
            {gram: int(count) for gram, _, count in (line.rpartition("\t") for line in lines)},
            kind == _ONE_DIGIT,
        )

    def _prob(self, context: str, character: str) -> float:
        """Return the probability by Witten & Bell 1991, method C.

        New continuations share the probability of the shorter context.
        """
        seen, kinds = self._followers.get(context, (0, 0))
        shorter = self._prob(context[1:], character) if context else 1 / self._characters
        if not seen:
            return shorter
        return (self.counts.get(context + character, 0) + kinds * shorter) / (seen + kinds)

    @cached_property
    def _followers(self) -> dict[str, tuple[int, int]]:
        """Context → the number of its continuations, and of different ones."""
        followers: dict[str, tuple[int, int]] = {}
        for gram, count in self.counts.items():
            seen, kinds = followers.get(gram[:-1], (0, 0))
            followers[gram[:-1]] = (seen + count, kinds + 1)
        return followers

    @cached_property
    def _characters(self) -> int:
        """The number of different characters, with the end and one for all unseen characters."""
        return sum(len(gram) == 1 for gram in self.counts) + 1


def _counted(texts: Iterable[str], order: int, one_digit: bool) -> Counter[str]:
    counts = Counter[str]()
    for text in texts:
        padded = _START * (order - 1) + (_one_digit(text) if one_digit else text) + _END
        for end in range(order, len(padded) + 1):
            counts.update(padded[end - size : end] for size in range(1, order + 1))
    return counts


def _one_digit(text: str) -> str:
    return "".join(_DIGIT if character.isdecimal() else character for character in text)


def _pruned(counts: Counter[str], least_count: int) -> dict[str, int]:
    """Return the counts without rare n-grams of three characters and more."""
    return {gram: count for gram, count in counts.items() if count >= least_count or len(gram) < 3}
