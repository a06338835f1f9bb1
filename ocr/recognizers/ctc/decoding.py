"""Class probabilities per output column → text with a confidence.

Decoding is the best path, a prefix beam with a character language model, or the likeliest entry.
Legend: T output columns, B batch, K classes, S positions of a target with blanks between (2 ×
length + 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ocr.alphabet import BLANK, Alphabet
from ocr.recognizers.ctc.beam import BeamSearch
from ocr.recognizers.ctc.calibration import Calibration
from ocr.recognizers.ctc.language_model import CharacterModel
from ocr.recognizers.ctc.lexicon import Lexicon
from ocr.recognizers.ctc.settings import DecodingSettings
from ocr.sample import Reading
from ocr.text import normalise

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_NEVER = -math.inf


def log_softmax(logits_TBK: Floats) -> Floats:
    """Return log probabilities over the last axis."""
    shifted = logits_TBK - logits_TBK.max(-1, keepdims=True)
    out: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out


def greedy(classes_T: Sequence[int]) -> list[int]:
    """Decode the best path: merge repeats, then drop blanks (Graves et al. 2006, section 3.2)."""
    previous = [BLANK, *classes_T[:-1]]
    return [
        index
        for index, before in zip(classes_T, previous, strict=True)
        if index not in (BLANK, before)
    ]


def log_likelihoods(
    log_probs_TBK: Floats, lengths_B: Ints, targets: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Return log p(target | image) of each image, [B]; -inf where the target cannot be written.

    Computed by the scaled forward pass (Graves et al. 2006, eq. 6–8).
    """
    spelt_BS, may_skip_BS = with_blanks(targets)
    batch, positions = spelt_BS.shape
    last_B = 2 * np.array([len(target) for target in targets])
    inside_BS = np.arange(positions) <= last_B[:, None]
    probs_TBS = (
        np.exp(np.take_along_axis(log_probs_TBK.astype(np.float64), spelt_BS[None], 2)) * inside_BS
    )
    forward_BS, total_B = np.zeros((batch, positions)), np.zeros(batch)
    forward_BS[:, :2] = 1.0
    result_B = np.full(batch, _NEVER)
    rows = np.arange(batch)
    for column, probs_BS in enumerate(probs_TBS):
        if column:
            forward_BS[:, 1:], skipping_BS = (
                forward_BS[:, 1:] + forward_BS[:, :-1],
                forward_BS[:, :-2].copy(),
            )
            forward_BS[:, 2:] += skipping_BS * may_skip_BS[:, 2:]
        forward_BS *= probs_BS
        scale_B = forward_BS.sum(1)
        with np.errstate(divide="ignore"):
            total_B += np.log(scale_B)
            ends = lengths_B == column + 1
            share_B = forward_BS[rows, last_B] + np.where(
                last_B > 0, forward_BS[rows, last_B - 1], 0.0
            )
            result_B[ends] = total_B[ends] + np.log(
                share_B[ends] / np.where(scale_B[ends] > 0, scale_B[ends], 1.0)
            )
        forward_BS /= np.where(scale_B > 0, scale_B, 1.0)[:, None]
    return result_B


def with_blanks(targets: Sequence[Sequence[int]]) -> tuple[Ints, NDArray[np.bool_]]:
    """Return targets with blanks between, [B, S], and where the blank before may be skipped."""
    positions = 2 * max(map(len, targets), default=0) + 1
    spelt_BS = np.full((len(targets), positions), BLANK)
    for row, target in zip(spelt_BS, targets, strict=True):
        row[1 : 2 * len(target) : 2] = target
    may_skip_BS = np.zeros(spelt_BS.shape, bool)
    may_skip_BS[:, 2:] = (spelt_BS[:, 2:] != BLANK) & (spelt_BS[:, 2:] != spelt_BS[:, :-2])
    return spelt_BS, may_skip_BS


@dataclass(frozen=True)
class Decoder:
    """Decoding as a bundle seals it, for one alphabet.

    `entries` are the only possible texts of a closed dictionary.
    """

    alphabet: Alphabet
    settings: DecodingSettings = field(default_factory=DecodingSettings)
    language_model: CharacterModel | None = None
    lexicon: Lexicon | None = None
    entries: tuple[str, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)

    def read(self, log_probs_TBK: Floats, lengths_B: Ints) -> list[Reading]:
        """Return the Reading of each image of a batch, with calibrated confidence."""
        return self.readings(self.decode(log_probs_TBK, lengths_B), log_probs_TBK, lengths_B)

    def readings(
        self, decoded: Sequence[Sequence[int]], log_probs_TBK: Floats, lengths_B: Ints
    ) -> list[Reading]:
        """Return the Reading of each image's decoded classes."""
        likelihoods_B = log_likelihoods(log_probs_TBK, lengths_B, decoded)
        return [
            Reading(self._text(ids), self.calibration(likelihood))
            for ids, likelihood in zip(decoded, likelihoods_B.tolist(), strict=True)
        ]

    def _text(self, ids: Sequence[int]) -> str:
        text = normalise(self.alphabet.decode(ids))
        return self.lexicon.corrected(text) if self.lexicon else text

    def decode(self, log_probs_TBK: Floats, lengths_B: Ints) -> list[list[int]]:
        """Return the classes of each image's text, before it is normalised."""
        lengths = lengths_B.tolist()
        if self.settings.method == "closed":
            return [
                self._likeliest(log_probs_TBK[:length, row]) for row, length in enumerate(lengths)
            ]
        if self.settings.method == "greedy":
            paths_BT = log_probs_TBK.argmax(2).T.tolist()
            return [greedy(path[:length]) for path, length in zip(paths_BT, lengths, strict=True)]
        return [self._beam.best(log_probs_TBK[:length, row]) for row, length in enumerate(lengths)]

    def _likeliest(self, log_probs_TK: Floats) -> list[int]:
        """Return the entry with the highest p(entry | image)."""
        columns = np.broadcast_to(
            log_probs_TK[:, None], (len(log_probs_TK), len(self._targets), log_probs_TK.shape[1])
        )
        return self._targets[
            int(
                log_likelihoods(
                    columns, np.full(len(self._targets), len(log_probs_TK)), self._targets
                ).argmax()
            )
        ]

    @cached_property
    def _targets(self) -> list[list[int]]:
        return [self.alphabet.encode(entry) for entry in self.entries]

    @cached_property
    def _beam(self) -> BeamSearch:
        settings = self.settings
        return BeamSearch(
            self.alphabet.characters,
            settings.beam_width,
            settings.length_bonus,
            self._language_score if self.language_model else None,
        )

    def _language_score(self, context: str, character: str) -> float:
        """Return the language model's score of a character, or of the end of the text ("")."""
        assert self.language_model is not None
        return self.settings.lm_weight * self.language_model.log_prob(context, character)
