"""Where on a line each word of a reading is: the likeliest path of its classes over the columns.

Legend: T output columns, K classes, S positions of a text with blanks between (2 × length + 1).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocr.alphabet import BLANK
from ocr.recognizers.ctc.decoding import Floats, Ints, with_blanks


def align(log_probs_TK: Floats, classes: Sequence[int]) -> tuple[Ints, Floats]:
    """Return the column of each class, and its log probability there.

    By the Viterbi path (Graves et al. 2006, eq. 6 with the maximum); of several columns that write
    one class, the likeliest. The classes must be possible: as many columns at least.
    """
    spelt_BS, may_skip_BS = with_blanks([classes])
    spelt_S, may_skip_S = spelt_BS[0], may_skip_BS[0]
    log_probs_TS = log_probs_TK[:, spelt_S].astype(np.float64)
    came_TS = np.zeros(log_probs_TS.shape, np.int8)  # 0 stayed, 1 from one, 2 from two before
    best_S = np.full(len(spelt_S), -np.inf)
    best_S[:2] = log_probs_TS[0, :2]
    for column in range(1, len(log_probs_TS)):
        stay = best_S
        step = np.concatenate([[-np.inf], best_S[:-1]])
        skip = np.where(
            may_skip_S, np.concatenate([[-np.inf] * 2, best_S[:-2]])[: len(best_S)], -np.inf
        )
        ways = np.stack([stay, step, skip])
        came_TS[column] = ways.argmax(0)
        best_S = ways.max(0) + log_probs_TS[column]
    at = len(spelt_S) - 1
    if at and best_S[at - 1] > best_S[at]:
        at -= 1
    path = np.zeros(len(log_probs_TS), np.int64)
    for column in range(len(path) - 1, -1, -1):
        path[column] = at
        at -= int(came_TS[column, at])
    return _strongest(path, spelt_S, log_probs_TS, len(classes))


def _strongest(
    path: Ints, spelt_S: Ints, log_probs_TS: NDArray[np.float64], length: int
) -> tuple[Ints, Floats]:
    columns, strengths = np.zeros(length, np.int64), np.full(length, -np.inf)
    for column, position in enumerate(path):
        if spelt_S[position] == BLANK:
            continue
        index = position // 2
        if log_probs_TS[column, position] > strengths[index]:
            columns[index], strengths[index] = column, log_probs_TS[column, position]
    return columns, strengths.astype(np.float32)
