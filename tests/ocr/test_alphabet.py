"""Text to classes and back, and characters that are not there are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr.alphabet import Alphabet
from ocr.errors import UserError
from ocr.text import normalise

ALPHABET = Alphabet.from_texts(["କଖ", "ଗକ"])


def test_classes_follow_code_points_and_zero_is_the_blank() -> None:
    assert ALPHABET.characters == ("କ", "ଖ", "ଗ")
    assert ALPHABET.encode("ଗକ") == [3, 1]
    assert ALPHABET.decode([3, 1]) == "ଗକ"
    assert len(ALPHABET) == 4


def test_an_unknown_character_is_named_by_code_point_and_name() -> None:
    with pytest.raises(UserError, match=r"U\+0964 DEVANAGARI DANDA \(2×\)"):
        ALPHABET.require(["କ।", "।"], "labels.txt")
    with pytest.raises(UserError, match="DANDA"):
        ALPHABET.encode("କ।")


def test_in_validation_an_unknown_character_is_counted_and_can_only_be_missed() -> None:
    assert ALPHABET.unknown(["କ।", "।ଘ"]) == {"।": 2, "ଘ": 1}
    assert ALPHABET.encode_known("କ।ଗ") == [1, 3]


@given(st.lists(st.text().map(normalise)))
def test_what_is_encoded_is_decoded_to_itself(texts: list[str]) -> None:
    alphabet = Alphabet.from_texts(texts)
    assert [alphabet.decode(alphabet.encode(text)) for text in texts] == texts
