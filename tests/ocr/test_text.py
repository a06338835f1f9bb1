"""One spelling for one picture: Odia, Bangla and Thai worked examples."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocr.text import describe_character, graphemes, normalise

SAMPLES = st.text(alphabet=st.sampled_from("କଖଗଡଢ଼୍ାିୀୁେୈୋୌଂଃ‌‍ কখড়ঢ়য়্ািোৌৎত กขทนำที่้ัํา่a1।॥\t﻿"), max_size=20)


@pytest.mark.parametrize(
    ("written", "one_spelling"),
    [
        ("କେ\u0b3e", "କୋ"),  # two-part vowel O: E + AA is one sign
        ("କେ\u0b57", "କୌ"),  # AU: E + AU length mark
        ("କେ\u0b56", "କୈ"),  # AI: E + AI length mark
        ("\u0b5c", "ଡ\u0b3c"),  # RRA is excluded from composition: DDA + nukta
        ("ক\u09c7\u09be", "কো"),
        ("ক\u09c7\u09d7", "কৌ"),
        ("\u09dc", "ড\u09bc"),  # Bangla RRA: DDA + nukta
        ("ত\u09cd\u200d", "ৎ"),  # khanda ta
        ("น\u0e4d\u0e32", "นำ"),  # NIKHAHIT + SARA AA is SARA AM
        ("น\u0e4d\u0e49\u0e32", "น้ำ"),  # with the tone between them
        ("น\u0e49\u0e4d\u0e32", "น้ำ"),
        ("କ୍\u200c", "କ୍"),  # no joiner at a token's end
        ("ক্\u200d খ", "ক্ খ"),
        ("\ufeffକ  ଖ\u00a0\n", "କ ଖ"),
        ("ରାମ \r\n\n ସୀତା\u2028ଲବ\n", "ରାମ\nସୀତା\nଲବ"),  # lines stay lines, empty ones go
        ("ରାମ ।", "ରାମ ।"),  # the danda stays what it is
    ],
)
def test_two_spellings_of_one_picture_become_one(written: str, one_spelling: str) -> None:
    assert normalise(written) == one_spelling


@pytest.mark.parametrize("text", ["କ୍\u200cଷ", "র\u200d্য", "ক্\u200cষ", "น้ำ", "କ୍ଷ"])
def test_a_joiner_inside_a_token_chooses_a_picture_and_stays(text: str) -> None:
    assert normalise(text) == text


def test_sara_am_is_not_torn_apart() -> None:
    assert normalise("\u0e33") == "\u0e33"
    assert unicodedata.normalize("NFKC", "\u0e33") != "\u0e33"


@given(SAMPLES | st.text())
@example("ক\u200d\x1c")
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "count"), [("କ୍ଷେ", 1), ("ସ୍ତ୍ରୀ", 1), ("ক্ষ", 1), ("ที่", 1), ("କୋଣାର୍କ", 3)]
)
def test_a_conjunct_with_its_vowel_is_one_written_unit(text: str, count: int) -> None:
    assert len(graphemes(text)) == count


def test_a_character_is_named() -> None:
    assert describe_character("।") == "U+0964 DEVANAGARI DANDA"
