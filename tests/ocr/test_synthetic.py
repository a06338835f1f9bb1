"""Rendered words: the image shows the whole label, and is a function of seed, word and index.

Over 300 lines: all tests render with the same settings.
"""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr.errors import UserError
from ocr.rendering.texts import select_texts, word_hash
from ocr.sample import Sample, Skip
from ocr.settings import parse_settings
from ocr.sources import files_of
from ocr.sources.settings import SyntheticSettings
from tests.support.sources import read_source

WORDS = [
    "ଓଡ଼ିଶା",
    "ବିଦ୍ୟାଳୟ",
    "ପ୍ରଧାନମନ୍ତ୍ରୀ",
    "କୃତଜ୍ଞତା",
    "ସୌରଭ",
    "ନିର୍ମାଣ",
    "ପାଇଁ",
    "ଲୋକ",
    "(ଶିକ୍ଷା),",
    "English",
    "ିଅନାଥ",
    "୨୦୨୪",
    "ଭାଷା,",
    "ଭାଷା",
]
FAMILY = "Lohit Odia"


@pytest.fixture
def settings(tmp_path: Path) -> SyntheticSettings:
    if shutil.which("fc-list") is None:
        pytest.skip("fontconfig is not installed (apt-get install fontconfig)")
    from ocr.rendering.fonts import find_fonts
    from ocr.rendering.scripts import SCRIPTS

    try:
        find_fonts(SCRIPTS["Oriya"], [FAMILY])
    except UserError:
        pytest.skip(f"the font {FAMILY} is not installed (apt-get install fonts-lohit-orya)")
    (tmp_path / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return SyntheticSettings(
        texts=(str(tmp_path / "words.txt"),), script="Oriya", fonts=(FAMILY,), count=30, seed=7
    )


def samples(settings: SyntheticSettings) -> list[Sample]:
    return [item for item in read_source(settings) if isinstance(item, Sample)]


def test_only_whole_words_of_the_script_are_rendered(settings: SyntheticSettings) -> None:
    assert sorted(select_texts(settings)) == sorted(
        ["ଓଡ଼ିଶା", "ବିଦ୍ୟାଳୟ", "ପ୍ରଧାନମନ୍ତ୍ରୀ", "କୃତଜ୍ଞତା", "ସୌରଭ", "ନିର୍ମାଣ", "ପାଇଁ", "ଲୋକ", "ଶିକ୍ଷା", "୨୦୨୪", "ଭାଷା"]
    )


def test_the_same_seed_renders_the_same_bytes_and_another_seed_others(
    settings: SyntheticSettings,
) -> None:
    first, again, other = (
        samples(settings),
        samples(settings),
        samples(settings.model_copy(update={"seed": 8})),
    )
    assert first == again
    assert all(one.image != two.image for one, two in zip(first, other, strict=True))
    assert len({sample.id for sample in first + other}) == 60


def test_more_images_leave_the_first_ones_as_they_were(settings: SyntheticSettings) -> None:
    assert samples(settings.model_copy(update={"count": 40}))[:30] == samples(settings)


def test_disjoint_hash_ranges_share_no_text(settings: SyntheticSettings) -> None:
    middle = sorted(word_hash(word) for word in select_texts(settings))[5]
    low, high = (
        settings.model_copy(update={"word_hash_range": bounds, "danda_share": 0.5})
        for bounds in ((0.0, middle), (middle, 1.0))
    )
    texts = [{sample.text.rstrip("।") for sample in samples(part)} for part in (low, high)]
    assert texts[0] and texts[1] and not texts[0] & texts[1]


def test_no_ink_touches_the_edge_and_the_height_is_as_set(settings: SyntheticSettings) -> None:
    clean = settings.model_copy(
        update={
            "noise": (0, 0),
            "texture": (0, 0),
            "blur_px": (0, 0),
            "paper_grey": (255, 255),
            "contrast": (1, 1),
            "inverted_share": 0.0,
            "image_format": "png",
        }
    )
    for sample in samples(clean):
        pixels = np.asarray(Image.open(io.BytesIO(sample.image)))
        assert 36 <= pixels.shape[0] <= 40
        assert (
            min(pixels[0].min(), pixels[-1].min(), pixels[:, 0].min(), pixels[:, -1].min()) == 255
        ), sample.text
        assert (pixels < 128).mean() > 0.02, sample.text


def test_the_font_travels_with_the_sample(settings: SyntheticSettings) -> None:
    assert samples(settings)[0].group == (("face", "Lohit Odia"), ("font", "Lohit-Odia"))


def test_a_word_that_no_font_renders_is_skipped_with_the_reason(
    settings: SyntheticSettings, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("କ\u0b55ଖ", encoding="utf-8")
    (item,) = read_source(settings.model_copy(update={"count": 1}))
    assert (
        isinstance(item, Skip)
        and item.reason == "no face draws the word"
        and "no glyph for U+0B55" in item.detail
    )


def test_a_rare_letter_is_repeated(settings: SyntheticSettings) -> None:
    words = select_texts(settings.model_copy(update={"least_per_letter": 4, "count": 1000}))
    assert sum("ଓ" in word for word in words) >= 4


def test_a_word_list_without_such_words_is_a_users_mistake(
    settings: SyntheticSettings, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("only English here", encoding="utf-8")
    with pytest.raises(UserError, match="no word of Oriya letters"):
        select_texts(settings)
    with pytest.raises(UserError, match="blur_px: 3 is above 1"):
        parse_settings(
            SyntheticSettings,
            {"texts": ["x"], "script": "Thai", "count": 1, "blur_px": [3, 1]},
            "here",
        )


def test_lines_are_packed_from_running_text_within_their_length(
    settings: SyntheticSettings, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(
        "ଓଡ଼ିଶା ଭାରତର ଏକ ରାଜ୍ୟ । ଏହା English ପୂର୍ବ ଦିଗରେ ଅଛି । ଏଠାରେ ୩୦ ଜିଲ୍ଲା ଅଛି ।\nଭୁବନେଶ୍ୱର ରାଜଧାନୀ",
        encoding="utf-8",
    )
    lines = settings.model_copy(
        update={"texts": (str(tmp_path / "text.txt"),), "level": "line", "length": (8, 16)}
    )
    texts = select_texts(lines)
    assert (
        texts
        and all(8 <= len(text) <= 16 for text in texts)
        and not any("English" in text for text in texts)
    )
    assert all(
        sample.level == "line"
        and sample.text.rstrip("।").strip() in {text.rstrip("।").strip() for text in texts}
        for sample in samples(lines)
    )


def test_thai_without_spaces_is_cut_beside_whole_syllables(
    settings: SyntheticSettings, tmp_path: Path
) -> None:
    text = "การพัฒนาสมรรถนะองค์กรด้วยเทคโนโลยีและความรู้" * 3
    (tmp_path / "thai.txt").write_text(text, encoding="utf-8")
    texts = select_texts(
        settings.model_copy(
            update={
                "texts": (str(tmp_path / "thai.txt"),),
                "script": "Thai",
                "level": "line",
                "length": (5, 12),
            }
        )
    )
    assert sum(map(len, texts)) > len(text) / 4 and not any(
        line[0] in "ะาำ่้็ิี" or line[-1] in "เแโใไ" for line in texts
    )


def test_a_paragraph_shows_its_lines_under_one_another(settings: SyntheticSettings) -> None:
    paragraphs = settings.model_copy(
        update={
            "level": "paragraph",
            "length": (4, 12),
            "lines": (2, 2),
            "count": 5,
            "inverted_share": 0.0,
            "height_px": (40, 40),
        }
    )
    for sample in samples(paragraphs):
        pixels = np.asarray(Image.open(io.BytesIO(sample.image)).convert("L"), dtype=float)
        assert (
            sample.text.count("\n") == 1 and sample.level == "paragraph" and pixels.shape[0] == 80
        )
        ink = np.percentile(pixels, 90) - pixels
        rows = ink.max(axis=1) > ink.max() / 2
        assert rows[:40].sum() > 8 and rows[40:].sum() > 8


def test_any_script_of_unicode_can_be_rendered(settings: SyntheticSettings, tmp_path: Path) -> None:
    (tmp_path / "deva.txt").write_text("नमस्ते भारत ଓଡ଼ିଶା", encoding="utf-8")
    assert sorted(
        select_texts(
            settings.model_copy(
                update={"texts": (str(tmp_path / "deva.txt"),), "script": "Devanagari"}
            )
        )
    ) == ["नमस्ते", "भारत"]
    with pytest.raises(UserError, match="Unicode has no script of that name"):
        select_texts(settings.model_copy(update={"script": "Klingonese"}))


CLUTTER = ("neighbour_share", "rule_share", "stamp_share", "show_through_share")


@pytest.mark.parametrize("share", CLUTTER)
def test_a_share_of_clutter_changes_that_share_of_images_and_no_label(
    settings: SyntheticSettings, share: str
) -> None:
    plain, cluttered = samples(settings), samples(settings.model_copy(update={share: 0.5}))
    assert (
        8
        <= sum(one.image != other.image for one, other in zip(plain, cluttered, strict=True))
        <= 22
    )
    assert [(one.id, one.text, one.group) for one in plain] == [
        (other.id, other.text, other.group) for other in cluttered
    ]


def test_one_kind_of_clutter_does_not_move_another(settings: SyntheticSettings) -> None:
    ruled = settings.model_copy(update={"rule_share": 1.0})
    both = samples(ruled.model_copy(update={"stamp_share": 0.5}))
    assert 8 <= sum(one == other for one, other in zip(samples(ruled), both, strict=True)) <= 22


def dictionary_of(entries: str, settings: SyntheticSettings, folder: Path) -> SyntheticSettings:
    (folder / "dict.txt").write_text("\n".join(entries.split()), encoding="utf-8")
    changes = {
        "texts": (),
        "dictionary": str(folder / "dict.txt"),
        "level": "character",
        "count": 12,
    }
    return settings.model_copy(update=changes)


def test_entries_of_a_dictionary_are_rendered_in_turn(
    settings: SyntheticSettings, tmp_path: Path
) -> None:
    from ocr.rendering.fonts import find_fonts
    from ocr.rendering.scripts import SCRIPTS

    try:
        find_fonts(SCRIPTS["Thai"], ["Garuda"])
    except UserError:
        pytest.skip("the font Garuda is not installed (apt-get install fonts-thai-tlwg)")
    entries = "ก กี่ ๗ A 7 +"
    thai = dictionary_of(entries, settings, tmp_path).model_copy(
        update={"script": "Thai", "fonts": ("Garuda",)}
    )
    rendered = samples(thai)
    assert [sample.text for sample in rendered] == entries.split() * 2
    assert {sample.level for sample in rendered} == {"character"}
    assert list(files_of(thai)) == [tmp_path / "dict.txt"]


def test_an_entry_that_no_font_covers_is_skipped_with_the_reason(
    settings: SyntheticSettings, tmp_path: Path
) -> None:
    items = list(read_source(dictionary_of("କ A", settings, tmp_path)))
    assert [item.text for item in items if isinstance(item, Sample)] == ["କ"] * 6
    assert {item.detail for item in items if isinstance(item, Skip)} == {"A: no glyph for U+0041"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"texts": ["x"], "dictionary": "d.txt"},
        {"texts": ["x"], "level": "character"},
        {"dictionary": "d.txt"},
    ],
)
def test_characters_come_from_a_dictionary_and_all_else_from_texts(
    given: dict[str, object],
) -> None:
    with pytest.raises(UserError, match="level: character needs a `dictionary`"):
        parse_settings(SyntheticSettings, {"script": "Thai", "count": 1, **given}, "here")
