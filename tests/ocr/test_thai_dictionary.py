"""The 880 entries of configs/thai/th_dict.txt, and the rule that chose them."""

from collections import Counter
from pathlib import Path

import pytest
import regex

from ocr.dictionary import Dictionary
from ocr.text import graphemes, normalise

PROJECT = Path(__file__).parent.parent.parent
FILE = PROJECT / "configs" / "thai" / "th_dict.txt"
CORPUS = PROJECT.parent / "shared" / "data" / "text" / "tha" / "pythainlp.ttc_freq.txt"


def entries() -> list[str]:
    return FILE.read_text(encoding="utf-8").splitlines()


def test_880_written_units_none_empty_and_none_twice() -> None:
    listed = entries()
    assert len(listed) == len(set(listed)) == 880
    for entry in listed:
        assert normalise(entry) == entry
        assert graphemes(entry) == [entry]
        assert regex.fullmatch(r"[!-~]|[\u0e01-\u0e5b]+", entry)
        assert not regex.match(r"[\p{M}\u0e33]", entry), "a mark without its consonant"


def test_every_entry_is_read_as_itself() -> None:
    dictionary = Dictionary.open(FILE)
    assert dictionary.entries == tuple(entries()) and dictionary.oddities == ()
    assert all(dictionary.spell(entry) == [entry] for entry in dictionary.entries)


def test_a_plain_sentence_is_spelt_whole() -> None:
    assert (
        Dictionary.open(FILE).missing(normalise("กรุงเทพมหานครเป็นเมืองหลวงที่มีน้ำท่วม๑๒๓ABCabc(2568)"))
        == ""
    )


def test_consonants_with_marks_are_those_that_the_corpus_holds_six_times() -> None:
    if not CORPUS.is_file():
        pytest.skip(f"{CORPUS} is not here (PyThaiNLP's ttc_freq.txt)")
    counts: Counter[str] = Counter()
    for line in CORPUS.read_text(encoding="utf-8").splitlines():
        word, count = line.split("\t")
        for unit in regex.findall("[ก-ฮ][ัิ-ู็]?[่-์]?ำ?", normalise(word)):
            counts[unit] += int(count)
    assert {unit for unit, count in counts.items() if len(unit) > 1 and count >= 6} == {
        entry for entry in entries() if len(entry) > 1
    }
