"""Lines of forms: numbers in both digit systems between phrases, the same for the same seed."""

from collections import Counter
from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.rendering import translations
from ocr.rendering.form_words import VOCABULARIES, thai_number
from ocr.rendering.forms import Forms
from ocr.rendering.scripts import SCRIPTS, script_named
from ocr.rendering.texts import select_texts
from ocr.sources import files_of
from ocr.sources.files import SHIPPED_TEXTS
from ocr.sources.settings import SyntheticSettings

PHRASES = {
    "Oriya": ["ଓଡ଼ିଶା ସରକାର ଶିକ୍ଷା ବିଭାଗ", "ଜୀବନର ମୂଳ ମନ୍ତ୍ର"],
    "Bengali": ["বাংলাদেশ সরকার শিক্ষা বিভাগ", "জীবনের মূল মন্ত্র"],
    "Thai": ["จำนวนผู้มีสิทธิเลือกตั้งตามบัญชีรายชื่อ", "ประกาศคณะกรรมการ"],
}
SHIPPED = sorted(
    path.relative_to(SHIPPED_TEXTS).as_posix() for path in SHIPPED_TEXTS.glob("*/*.xz")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_forms_have_all_digits_of_both_systems_and_their_signs(script: str) -> None:
    forms = Forms(SCRIPTS[script], PHRASES[script], 110)
    lines = [forms.line(1, index) for index in range(2000)]
    counts = Counter("".join(lines))
    digits = SCRIPTS[script].digits
    assert all(counts[digit] > 100 for digit in "0123456789" + digits)
    assert all(counts[sign] > 100 for sign in ".,/-:()")
    assert max(map(len, lines)) <= 110
    assert sum(line[0] in digits for line in lines) > 100
    assert lines == [forms.line(1, index) for index in range(2000)]
    assert lines != [forms.line(2, index) for index in range(2000)]


def test_latin_words_keep_their_own_digits() -> None:
    forms = Forms(SCRIPTS["Thai"], PHRASES["Thai"], 110)
    words = " ".join(forms.line(3, index) for index in range(2000)).split()
    latin = [word for word in words if any(map(is_latin, word))]
    assert latin and not any(digit in word for word in latin for digit in SCRIPTS["Thai"].digits)


def is_latin(letter: str) -> bool:
    return letter.isascii() and letter.isalpha()


def test_a_script_without_a_vocabulary_has_forms_too() -> None:
    forms = Forms(script_named("Tamil"), ["தமிழ் மொழி"], 60)
    lines = [forms.line(1, index) for index in range(500)]
    assert any("தமிழ்" in line for line in lines) and any("௫" in line for line in lines)
    assert "Tamil" not in VOCABULARIES
    assert script_named("Tamil").digits == "௦௧௨௩௪௫௬௭௮௯"
    assert script_named("Greek").digits == "0123456789"


def test_numbers_in_thai_words() -> None:
    known = {
        0: "ศูนย์",
        1: "หนึ่ง",
        11: "สิบเอ็ด",
        21: "ยี่สิบเอ็ด",
        101_511: "หนึ่งแสนหนึ่งพันห้าร้อยสิบเอ็ด",
        42_216: "สี่หมื่นสองพันสองร้อยสิบหก",
        1_000_000: "หนึ่งล้าน",
    }
    assert {number: thai_number(number) for number in known} == known


def settings(**more: object) -> SyntheticSettings:
    return SyntheticSettings.model_validate(
        {
            "texts": ["shipped:thai/langdata.training_text.txt.xz"],
            "script": "Thai",
            "level": "line",
            "length": [4, 60],
            "count": 1000,
            **more,
        }
    )


def test_shares_of_forms_and_words_are_kept_beside_running_text() -> None:
    texts = select_texts(settings(form_share=0.3, word_share=0.1))
    plain = set(select_texts(settings()))
    assert len(texts) == 1000
    assert 250 <= sum(text not in plain for text in texts) <= 400
    assert texts == select_texts(settings(form_share=0.3, word_share=0.1))


def test_latin_letters_are_let_in_up_to_their_share() -> None:
    def latin(text: str) -> float:
        return sum(map(is_latin, text)) / len(text)

    source = {"texts": ["shipped:thai/thaigov.lines.txt.xz"]}
    assert not any(map(latin, select_texts(settings(**source))))
    some = select_texts(settings(**source, latin_share=0.4))
    assert any(map(latin, some)) and max(map(latin, some)) <= 0.4


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_text_can_be_rendered(name: str) -> None:
    script = {"odia": "Oriya", "bangla": "Bengali", "thai": "Thai"}[name.partition("/")[0]]
    found = select_texts(settings(texts=[f"shipped:{name}"], script=script, level="word", count=50))
    assert len(found) == 50


def test_a_shipped_text_is_a_file_that_the_samples_depend_on() -> None:
    shipped = SHIPPED_TEXTS / "thai" / "langdata.training_text.txt.xz"
    assert list(files_of(settings())) == [shipped] and shipped.is_file()


def test_translations_without_a_catalogue_are_a_users_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], [str(tmp_path)], [str(tmp_path / "none")]):
        assert translations._main(arguments) == 2
        assert "translations FOLDER > strings.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"), [("a.xz", b"not packed"), ("b.gz", b"not packed"), ("none.txt", None)]
)
def test_a_text_that_cannot_be_unpacked_is_named(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: .*`texts` names word lists or running text"):
        select_texts(settings(texts=[str(tmp_path / name)]))
