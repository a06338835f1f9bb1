"""Error rates: equal to jiwer's, additive over any division, and right on readable examples."""

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr.scoring import Counts, confusions, score, score_all
from ocr.text import normalise

TEXTS = st.text(alphabet="କଖଗ୍ାି ড়ঢনที่ abc", min_size=1, max_size=15).map(normalise).filter(bool)
PAIRS = st.lists(
    st.tuples(TEXTS, st.text(alphabet="କଖଗ୍ାି ড়ঢনที่ abc", max_size=15).map(normalise)),
    min_size=1,
    max_size=8,
)


@given(PAIRS)
def test_cer_and_wer_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    references, readings = [list(texts) for texts in zip(*pairs, strict=True)]
    counts = score_all(pairs)
    assert counts.cer == pytest.approx(jiwer.cer(references, readings), abs=1e-12)
    assert counts.wer == pytest.approx(jiwer.wer(references, readings), abs=1e-12)


@given(PAIRS)
def test_counts_add_up_over_any_division(pairs: list[tuple[str, str]]) -> None:
    assert score_all(pairs[::2]) + score_all(pairs[1::2]) == score_all(pairs)
    assert Counts.from_vector(
        [float(value) for value in score_all(pairs).as_vector()]
    ) == score_all(pairs)


def test_one_missing_nukta_is_one_error() -> None:
    counts = score("ବଡ଼ ଘର", "ବଡ ଘର")
    assert (counts.character_edits, counts.characters) == (1, 6)
    assert (counts.grapheme_edits, counts.graphemes) == (1, 5)
    assert (counts.word_edits, counts.words, counts.exact) == (1, 2, 0)


def test_two_spellings_of_one_picture_are_no_error() -> None:
    assert score("କେ\u0b3e", "କୋ").exact == 1


def test_an_error_rate_is_not_clipped() -> None:
    assert score("କ", "ଖଗଘ").cer == 3.0


def test_a_reading_gone_into_a_loop_is_counted() -> None:
    assert score("ଭାରତ", "ଭାରତ" * 6).looping == 1
    assert score("ଭାରତ", "ଭାରତ").looping == 0


def test_confusions_name_what_was_expected_and_read() -> None:
    assert confusions([("କଖ", "କଗ"), ("କଖ", "କ"), ("କ", "କଘ")]) == {
        ("ଖ", "ଗ"): 1,
        ("ଖ", ""): 1,
        ("", "ଘ"): 1,
    }
