"""The recognisers that ship: small, whole, and reading right after setup, without torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ocr.bundle import SHIPPED, open_bundle, shipped_names
from ocr.images import encode_image
from ocr.recognizers.factory import load
from ocr.rendering.draws import Draws
from ocr.rendering.fonts import find_fonts
from ocr.rendering.scripts import script_named
from ocr.scoring import score_all

WORDS = {
    "odia": ("Oriya", "Noto Sans Oriya", "ଓଡ଼ିଶା ଭାଷା ପୁସ୍ତକ ନଦୀ ଶିକ୍ଷକ ବିଦ୍ୟାଳୟ ସ୍ୱାଧୀନତା ଆକାଶ ପରିବାର ମନ୍ଦିର"),
    "bangla": (
        "Bengali",
        "Noto Sans Bengali",
        "বাংলা ভাষা পুস্তক নদী শিক্ষক বিদ্যালয় স্বাধীনতা আকাশ পরিবার মন্দির",
    ),
    "thai": (
        "Thai",
        "Noto Sans Thai",
        "ภาษาไทย หนังสือ แม่น้ำ โรงเรียน ประเทศ ครอบครัว เสรีภาพ ท้องฟ้า ผู้สอน น้ำใจ",
    ),
}


def rendered(name: str) -> tuple[list[object], list[str]]:
    """Ten words, clean, in a font that Debian's fonts-noto-core has."""
    from ocr.rendering.clutter import Clutter, choose_clutter
    from ocr.rendering.render import render
    from ocr.sources.settings import SyntheticSettings

    script, family, words = WORDS[name]
    font = find_fonts(script_named(script), [family])[0]
    settings = SyntheticSettings(texts=("none",), script=script, count=1)
    texts = words.split()
    clutter: Clutter = choose_clutter(settings, texts, texts[0], 0, font)
    return [render(text, font, settings, Draws(1, text), clutter) for text in texts], texts


@pytest.mark.parametrize("name", WORDS)
def test_a_shipped_recogniser_is_small_and_reads_words_of_its_script(name: str) -> None:
    assert name in shipped_names()
    sizes = {file.name: file.stat().st_size for file in (SHIPPED / name).iterdir()}
    replayed = sum(size for file, size in sizes.items() if file.endswith(".parquet"))
    assert sum(sizes.values()) - replayed <= 4_500_000 and sum(sizes.values()) <= 8_000_000
    assert replayed <= 4_000_000
    bundle = open_bundle(Path(name))
    assert (
        set(bundle.backends) == {"torch", "onnx-int8"}
        and bundle.default_backend("cpu") == "onnx-int8"
    )
    assert not str(bundle.card["data"]).startswith("/")
    images, texts = rendered(name)
    for backend in bundle.backends:
        read = [reading.text for reading in load(Path(name), backend).read(images)]  # type: ignore[arg-type]
        assert score_all(zip(texts, read, strict=True)).cer < 0.15


def test_reading_with_a_base_needs_no_torch(tmp_path: Path) -> None:
    images, _ = rendered("thai")
    (tmp_path / "word.png").write_bytes(encode_image(images[0]))  # type: ignore[arg-type]
    code = (
        "import sys; sys.argv = ['read.py', 'thai', sys.argv[1]]\nimport runpy\ntry:\n    "
        "runpy.run_path('ray_jobs/read.py', run_name='__main__')\nexcept SystemExit as end:\n "
        "   assert not end.code\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "word.png")],
        capture_output=True,
        text=True,
        check=True,
    )
    text, torch_was_imported = done.stdout.strip().split("\n")
    assert text and torch_was_imported == "False"


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_image_without_ink_reads_as_nothing_with_confidence_zero(name: str, grey: int) -> None:
    blank = np.full((40, 200), grey, np.uint8)
    faint = blank ^ (np.arange(200, dtype=np.uint8) % 2)  # noise of one grey level
    words, _ = rendered(name)
    nothing, also_nothing, text = load(Path(name)).read([blank, faint, words[0]])  # type: ignore[list-item]
    assert (nothing.text, nothing.confidence) == ("", 0.0) == (also_nothing.text, 0.0)
    assert text.text and text.confidence > 0
