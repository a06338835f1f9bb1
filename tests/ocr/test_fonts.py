"""The font gate: what a font must tell apart before it may draw labels."""

import shutil

import pytest

from ocr.errors import UserError
from ocr.rendering.font import Font
from ocr.rendering.font_check import check_font
from ocr.rendering.fonts import _main, find_fonts, usable_fonts
from ocr.rendering.scripts import SCRIPTS

pytestmark = pytest.mark.skipif(
    shutil.which("fc-list") is None,
    reason="fontconfig is not installed (apt-get install fontconfig)",
)


def font_of(family: str, script: str, stem: str = "") -> Font:
    try:
        fonts = [font for font in find_fonts(SCRIPTS[script], [family]) if stem in font.name]
    except UserError:
        fonts = []
    if not fonts:
        pytest.skip(f"the font {family} is not installed")
    return fonts[0]


@pytest.mark.parametrize(
    ("family", "script"),
    [
        ("Lohit Odia", "Oriya"),
        ("Noto Sans Oriya", "Oriya"),
        ("Noto Sans Bengali", "Bengali"),
        ("Noto Sans Thai", "Thai"),
    ],
)
def test_a_sound_font_passes_and_may_render_everything(family: str, script: str) -> None:
    check = check_font(font_of(family, script), SCRIPTS[script])
    assert (check.reason, check.font.avoid) == ("", ())


def test_a_thai_font_that_drops_tone_marks_is_refused() -> None:
    check = check_font(font_of("Noto Looped Thai", "Thai"), SCRIPTS["Thai"])
    assert "renders ที่ like ที" in check.reason


def test_a_font_without_conjuncts_is_refused() -> None:
    assert (
        "does not form କ୍ଷ"
        in check_font(font_of("FreeSerif", "Oriya", "FreeSerif"), SCRIPTS["Oriya"]).reason
    )


def test_utkal_is_kept_from_words_with_its_dotted_ya_phala() -> None:
    font = check_font(font_of("ori1Uni", "Oriya"), SCRIPTS["Oriya"]).font
    assert font.refusal("ବାକ୍ୟ") == "renders ପ୍ୟ with a stray mark below"
    assert font.refusal("ଓଡ଼ିଶା") is None


def test_a_dotted_circle_or_a_missing_glyph_refuses_the_word() -> None:
    font = font_of("Lohit Odia", "Oriya")
    assert font.refusal("ଅା") == "renders a dotted circle or an empty box"
    assert font.refusal("ଓଡ଼ିଶା ก") == "no glyph for U+0E01"


def test_no_usable_font_names_the_packages_and_every_reason() -> None:
    path = font_of("DejaVu Sans", "Oriya").path
    with pytest.raises(UserError, match=r"(?s)fonts-lohit-orya.*DejaVu.*no glyph"):
        usable_fonts(SCRIPTS["Oriya"], [str(path)])


def test_an_unknown_family_and_a_missing_folder_are_named() -> None:
    with pytest.raises(UserError, match="fontconfig knows no such family"):
        find_fonts(SCRIPTS["Oriya"], ["Nonesuch Odia"])
    with pytest.raises(UserError, match="make fonts"):
        find_fonts(SCRIPTS["Oriya"], ["no/such/folder"])


def test_a_web_font_is_unpacked_under_its_new_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from fontTools.ttLib import TTFont

    original = font_of("Lohit Odia", "Oriya")
    font = TTFont(original.path)
    font.flavor = "woff2"
    font.save(tmp_path / "web.woff2")
    assert (
        _main(
            [
                "convert",
                str(tmp_path / "web.woff2"),
                str(tmp_path / "lohit-web.ttf"),
                "--family",
                "My Lohit",
            ]
        )
        == 0
    )
    (font,) = find_fonts(SCRIPTS["Oriya"], [str(tmp_path)])
    assert (font.family, font.name) == ("My Lohit", "lohit-web")
    assert check_font(font, SCRIPTS["Oriya"]).reason == ""


def test_the_latin_cut_of_a_face_joins_its_other_cut(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from fontTools.subset import Subsetter
    from fontTools.ttLib import TTFont

    families = {"odia": "Noto Sans Oriya", "latin": "Noto Sans"}
    for name, codes in {"odia": range(0xB00, 0xB80), "latin": range(0x20, 0x7F)}.items():
        font = TTFont(font_of(families[name], "Oriya").path)
        subsetter = Subsetter()
        subsetter.populate(unicodes=codes)
        subsetter.subset(font)
        font.flavor = "woff2"
        font.save(tmp_path / f"{name}.woff2")
    files = [str(tmp_path / f"{name}") for name in ("odia.woff2", "joined.ttf", "latin.woff2")]
    assert _main(["convert", *files[:2], "--latin", files[2]]) == 0
    (joined,) = find_fonts(SCRIPTS["Oriya"], [files[1]])
    assert check_font(joined, SCRIPTS["Oriya"]).reason == ""
    assert {ord("A"), ord("7"), ord("/"), 0x0B15} <= joined.characters


def test_a_file_that_is_no_font_is_a_users_mistake(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    assert _main(["convert", str(tmp_path / "broken.ttf"), str(tmp_path / "out.ttf")]) == 2
    with pytest.raises(UserError, match="not a font that can be loaded"):
        usable_fonts(SCRIPTS["Oriya"], [str(tmp_path)])
