"""Faults that the linter finds and fixes: Odia, Bangla and Thai examples, and real text."""

import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr.linting import KINDS, Finding, fix, lint
from ocr.text import normalise

REAL_TEXT = Path(__file__).parents[3] / "shared" / "data" / "text"

CHARACTERS = (
    st.sampled_from(
        "ক্তরেোািঁংঃ়ৎঅକତଡ୍ାିେ଼ଁଂଅกนำเแ่้ัิุู์ํา\u200c\u200d\u200d \t\r\n"
        "\ufeff\u200b\u00ad\ufe0f\u202e\x00\x1c\x85\u0301\u25ccaе1১୧❤👨"
    )
    | st.characters(min_codepoint=0x0900, max_codepoint=0x09FF)
    | st.characters(min_codepoint=0x0B00, max_codepoint=0x0B7F)
    | st.characters(min_codepoint=0x0E00, max_codepoint=0x0E7F)
    | st.characters()
)
LABELS = st.text(CHARACTERS, max_size=16)

FIXED_BY_NORMALISE = {
    "carriage return or tab",
    "KHANDA TA in old spelling",
    "byte order mark",
    "joiner at a token's end",
    "SARA AM in two parts",
    "not NFC",
}
FIXED = [
    ("not NFC", "ব\u09dc", "ব\u09a1\u09bc"),  # RRA, written as one character
    ("not NFC", "ও\u09df", "ও\u09af\u09bc"),
    ("not NFC", "ବ\u0b5c", "ବ\u0b21\u0b3c"),
    ("not NFC", "ক\u09c7\u09be", "কো"),
    ("not NFC", "କ\u0b47\u0b57", "କୌ"),
    ("not NFC", "ก\u0e48\u0e39", "กู่"),
    ("not NFC", "e\u0301", "é"),
    ("SARA AM in two parts", "จ\u0e4d\u0e32นวน", "จำนวน"),
    ("SARA AM in two parts", "น\u0e49\u0e4d\u0e32", "น้ำ"),
    ("SARA AM in two parts", "น\u0e4d\u0e49\u0e32", "น้ำ"),
    ("KHANDA TA in old spelling", "উ\u09a4\u09cd\u200dস", "উৎস"),
    ("KHANDA TA in old spelling", "হঠা\u09a4\u09cd\u200d", "হঠাৎ"),
    ("letter in two parts", "\u0985\u09beম", "আম"),
    ("letter in two parts", "\u0b05\u0b3eମ", "ଆମ"),
    ("letter in two parts", "\u0e40\u0e40ละ", "และ"),
    ("joiner at a token's end", "କମ୍\u200c", "କମ୍"),
    ("joiner at a token's end", "আল্লাহ্\u200c এক", "আল্লাহ্ এক"),
    ("joiner out of place", "\u200dক", "ক"),
    ("joiner out of place", "ক \u200cখ", "ক খ"),
    ("joiner out of place", "ଉଚିତ୍\u200c।", "ଉଚିତ୍।"),
    ("joiner out of place", "ডাচ্\u200c-বাংলা", "ডাচ্-বাংলা"),
    ("joiner out of place", "কি\u200cছু", "কিছু"),
    ("joiner out of place", "হাই\u200cকোর্ট", "হাইকোর্ট"),
    ("joiner out of place", "ক্\u200c\u200cষ", "ক্\u200cষ"),
    ("joiner out of place", "ก\u200dข", "กข"),
    ("marks in wrong order", "ওড\u09bf\u09bcশা", "ওড\u09bc\u09bfশা"),
    # as in langdata.ori.training_text
    (
        "marks in wrong order",
        "ଓଡ\u0b3f\u0b3cଶା",
        "ଓଡ\u0b3c\u0b3fଶା",
    ),
    ("marks in wrong order", "ত\u0981\u09beরা", "তাঁরা"),  # as in langdata.ben.training_text
    ("marks in wrong order", "ท\u0e48\u0e35", "ที่"),
    ("marks in wrong order", "สิทธ\u0e4c\u0e34", "สิทธิ์"),
    ("marks in wrong order", "น\u0e33\u0e49", "น้ำ"),
    ("bidi control", "ক\u200fখ", "কখ"),
    ("bidi control", "\u2067กข\u2069", "กข"),
    ("NUL", "କ\x00ଖ", "କଖ"),
    ("control character", "কখ\x07", "কখ"),
    ("control character", "ก\x0cข", "ก\nข"),  # a form feed parts lines
    ("invisible character", "ภาษา\u200bไทย", "ภาษาไทย"),
    ("invisible character", "soft\u00adhyphen", "softhyphen"),
    ("invisible character", "କ\ufe0fଖ", "କଖ"),
    ("invisible character", "a\U000e0041", "a"),
    ("byte order mark", "\ufeffকখ", "কখ"),
    ("byte order mark", "କ\ufeffଖ", "କଖ"),
    ("carriage return or tab", "ที่\t63126", "ที่ 63126"),
    ("carriage return or tab", "କ\r\nଖ", "କ\nଖ"),
]

LEFT_TO_A_PERSON = [
    ("orphan mark", "\u09beক"),
    ("orphan mark", "ক \u09bf"),
    ("orphan mark", "১০\u09bfট"),  # as in langdata.ben.training_text
    ("orphan mark", "(\u0b3eକ"),
    ("orphan mark", "\u0b3cକ"),
    ("orphan mark", "\u0b4dକ"),
    ("orphan mark", "କ ।\u0b01"),
    ("orphan mark", "\u0902क"),
    ("orphan mark", "\u0e49ก"),
    ("orphan mark", "รักษา\u0e39"),  # as in words_th.txt
    ("orphan mark", "กุมภาพันะ\u0e4c"),  # as in thaigov.lines.txt
    ("orphan mark", "เ\u0e34"),
    ("orphan mark", "2\u0e31"),
    ("orphan mark", "a \u0301e"),
    # vowel signs stored as they are seen, as in langdata.ben.training_text
    (
        "impossible pair",
        "পা\u09c7র",
    ),
    ("impossible pair", "ই\u09bfতহাস"),
    ("impossible pair", "জাতিসং\u09c7ঘ"),
    ("impossible pair", "সন\u09c7\u09cdদহ"),
    ("impossible pair", "ମୃତ\u0b41\u0b4dୟ"),
    ("impossible pair", "କରନ\u0b4d\u200c\u0b3f"),
    ("impossible pair", "ଆ\u0b4bମ"),
    ("impossible pair", "କ\u0b02\u0b02"),
    ("impossible pair", "ড\u09bc\u09bc"),
    ("impossible pair", "ที\u0e48\u0e49"),
    ("impossible pair", "อยุ\u0e39ธยา"),
    ("impossible pair", "คา\u0e40\u0e41ร็ก"),
    # ଅଞ୍ଚଳ in mannkibaat: without the control it would be another wrong word
    (
        "C1 control",
        "ଅ\x81ଳ",
    ),
    ("lone surrogate", "ক\ud800"),
    ("replacement character", "ก\ufffd"),
    ("unassigned code point", "କ\u0b7f"),
    ("private use", "ſ\ue8bf"),
    ("mixed digits", "256\u0e55"),
    ("mixed digits", "১\u0b67"),
    ("mixed scripts", "ନlହିଁ"),  # a Latin l in mannkibaat
    ("mixed scripts", "କ\u0995ଖ"),
    ("mixed scripts", "ড\u093c"),  # Devanagari nukta
    ("mixed scripts", "p\u0430ge"),  # Cyrillic a
]

CLEAN = """
ଅଁ ହିଁ ଓଡ଼ିଆ ଡ଼ାକ ଢ଼େର ଓ୍ବ ୱାର୍ଡ ସ୍ତ୍ରୀ କୋଣାର୍କ କୌ କୈ ଦୁଃଖ ସିଂହ ଏବଂ ଶ୍ରୀକୃଷ୍ଣଃ ମାଁ ଅଂଃ କମ୍‌ର କ୍‌ଷ କ୍‍ଷ ୧୨୩ ରାମ। ବିକାଶ॥ ଗଣେଶଽ ପ୍ରାକ୍-ଶିଶୁ
আঁ অ্যা এ্যাকাউন্ট র‍্য র‍্যাব র‌্যাব ৎ উৎস হঠাৎ চাঁদ হ্যাঁ দুঃখ সংঘ
মোঃ বড় আষাঢ় হয় ক্‌ষ উদ্‌যাপন আল্লাহ্‌র শুঁড় সোঽহম্ কৌ পৌঁছে ২০১৮
১০% ৳৫০ ষ্ণাং ভ্ৰমণ গ‌ু
ที่ น้ำ กึ่ ฤๅ ฤดู เก็บ แห่ง โต๊ะ ใหญ่ ไม่ สิทธิ์ พันธุ์ ศาสตร์
ทั้งนี้ ๆ ฯลฯ ก็ เป็น พฺรหฺมรํสี กิํ ๒๕๖๐ คำ เดิ๋ยว ปั๊ม จันทร์ มั้ย ฿
GSTร์
क्‍ष हिंदी ड़ ज़रूरत र्‍य ओऽ संस्कृतम् तल्ँ दुःखं ॐ
é e̠ ſ‌t ❤️ 👨‍👩‍👧 1️⃣ ◌ା ◌ี 葛󠄀 می‌خواهم ක්‍ෂ ക്‍, COVIDରେ GSTର ODFର FSSAIସୁରକ୍ଷିତ และThai ฝุ่นPM2.5
"""


def kinds(text: str) -> set[str]:
    return {finding.kind for finding in lint(text)}


@pytest.mark.parametrize(("kind", "text", "fixed"), FIXED)
def test_a_fault_that_a_rule_can_fix_is_reported_and_fixed(
    kind: str, text: str, fixed: str
) -> None:
    assert kind in kinds(text)
    assert fix(text) == fixed
    assert not lint(fixed)


@pytest.mark.parametrize(("kind", "text"), LEFT_TO_A_PERSON)
def test_a_fault_that_needs_a_person_is_found_and_left(kind: str, text: str) -> None:
    assert kinds(text) == {kind}
    assert fix(text) == text


@pytest.mark.parametrize("text", CLEAN.split())
def test_right_spelling_raises_no_alarm(text: str) -> None:
    assert lint(text) == []


def test_every_kind_has_a_worked_example() -> None:
    assert {kind for kind, *_ in FIXED} == {
        name for name, kind in KINDS.items() if kind.replacement is not None
    }
    assert {kind for kind, _ in LEFT_TO_A_PERSON} == {
        name for name, kind in KINDS.items() if kind.replacement is None
    }


def test_what_cannot_be_stored_is_fatal() -> None:
    assert {name for name, kind in KINDS.items() if kind.severity == "fatal"} == {
        "NUL",
        "lone surrogate",
    }


def test_a_finding_says_where_and_what() -> None:
    assert lint("ক \u09bf") == [
        Finding("orphan mark", 2, "U+09BF BENGALI VOWEL SIGN I, after U+0020 SPACE")
    ]
    assert lint("\ufeffก")[0].detail == "U+FEFF ZERO WIDTH NO-BREAK SPACE, at the start"


def test_findings_follow_the_order_of_the_text() -> None:
    findings = lint("\u09beক ปี256\u0e55 ท\u0e48\u0e35\x00")
    assert [finding.kind for finding in findings] == [
        "orphan mark",
        "mixed digits",
        "marks in wrong order",
        "NUL",
    ]
    assert [finding.position for finding in findings] == [0, 5, 11, 13]


def test_a_mark_behind_an_invisible_character_has_its_base() -> None:
    assert kinds("ক\u200bা") == {"invisible character"}


@settings(deadline=None)
@given(LABELS)
def test_fixing_twice_is_fixing_once(text: str) -> None:
    assert fix(fix(text)) == fix(text)


@settings(deadline=None)
@given(LABELS)
def test_after_fixing_only_a_person_can_help(text: str) -> None:
    assert not {kind for kind in kinds(fix(text)) if KINDS[kind].replacement is not None}
    assert unicodedata.is_normalized("NFC", fix(text))


@settings(deadline=None)
@given(LABELS)
def test_fix_changes_exactly_the_labels_with_a_fault_it_can_fix(text: str) -> None:
    assert (fix(text) != text) == any(KINDS[kind].replacement is not None for kind in kinds(text))


@settings(deadline=None)
@given(LABELS)
def test_a_fixed_label_has_one_normal_form(text: str) -> None:
    assert normalise(normalise(fix(text))) == normalise(fix(text))
    assert not {kind for kind in kinds(normalise(fix(text))) if KINDS[kind].replacement is not None}


@settings(deadline=None)
@given(
    LABELS.map(
        lambda text: "".join(
            character for character in text if unicodedata.category(character) != "Cc"
        )
    )
)
def test_normalise_fixes_what_reading_would_differ_by(text: str) -> None:
    assert not {kind for kind in kinds(normalise(text)) if kind in FIXED_BY_NORMALISE}


# Every fault flagged in these files was read, 30 words a kind, and is real; the bounds are a little
# above the counts.
@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="real text lies beside the checkout")
@pytest.mark.parametrize(
    ("file", "per_mille", "known"),
    [
        ("ori/mannkibaat.lines.txt", 0.2, {}),
        ("ori/langdata.ori.training_text", 0.2, {"marks in wrong order": 2.0}),
        ("ben/langdata_lstm.ben.wordlist", 0.2, {"joiner at a token's end": 3.0}),
        (
            "ben/langdata.ben.training_text",
            0.2,
            {"impossible pair": 35.0, "marks in wrong order": 3.0, "orphan mark": 2.0},
        ),
        ("tha/thaigov.lines.txt", 0.4, {"SARA AM in two parts": 1.5, "C1 control": 1.0}),
    ],
)
def test_running_text_raises_few_alarms(
    file: str, per_mille: float, known: dict[str, float]
) -> None:
    words = (REAL_TEXT / file).read_text(encoding="utf-8").replace("\n", " ").split(" ")
    flagged = Counter(kind for word in words for kind in kinds(word))
    too_many = {
        kind: count
        for kind, count in flagged.items()
        if 1000 * count > known.get(kind, per_mille) * len(words)
    }
    assert not too_many
