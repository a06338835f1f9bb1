"""Reading from Python: any name of a bundle, any form of an image, one or many."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocr import load
from ocr.bundle import SHIPPED, open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, open_image
from ocr.recognizers.ctc.reading import CtcRecognizer
from ocr.recognizers.factory import load_all
from ocr.recognizers.recognizer import PixelReader
from ocr.sample import Reading
from tests.support.commands import PROJECT


@pytest.fixture(scope="module")
def odia() -> Any:
    return load("odia")


@pytest.fixture(scope="module")
def grey() -> Pixels:
    return open_image(Dataset.open("odia_words", "validation").image_bytes(0))


@pytest.fixture(scope="module")
def text(odia: Any, grey: Pixels) -> str:
    (reading,) = odia.read([grey])
    assert reading.text
    return str(reading.text)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_bundle_is_named_by_a_word_a_path_or_below_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bundle").symlink_to(SHIPPED / "odia")
    for name in ("odia", Path("odia"), str(SHIPPED / "odia"), SHIPPED / "odia", "~/bundle"):
        assert load(name).name == load_all(str(name)).name == "base-odia"
    assert open_bundle("odia").path == open_bundle(Path("odia")).path
    with pytest.raises(UserError, match=r"no-such: expected a bundle.*odia"):
        load("no-such")


def forms(grey: Pixels, folder: Path) -> dict[str, Any]:
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    file = folder / "ଧାଡ଼ି 1.png"
    file.write_bytes(png(grey))
    return {
        "str": str(file),
        "Path": file,
        "bytes": png(grey),
        "bytearray": bytearray(png(grey)),
        "memoryview": memoryview(png(grey)),
        "file": io.BytesIO(png(grey)),
        "Pillow grey": Image.fromarray(grey),
        "Pillow RGB": Image.fromarray(rgb),
        "Pillow palette": Image.fromarray(grey).convert("P"),
        "grey": grey,
        "one channel": grey[:, :, None],
        "RGB": rgb,
        "RGBA": np.dstack([rgb, np.full_like(grey, 255)]),
        "0…1 float32": (grey / 255).astype(np.float32),
        "0…1 float16 RGB": (rgb / 255).astype(np.float16),
        "0…255 float": grey.astype(np.float64),
        "int64": grey.astype(np.int64),
        "uint16": grey.astype(np.uint16) * 257,
        "strided": np.asfortranarray(rgb)[:, :, ::-1],
        "read-only": np.frombuffer(grey.tobytes(), np.uint8).reshape(grey.shape),
    }


def test_one_image_in_any_form_gives_one_reading(
    odia: Any, grey: Pixels, text: str, tmp_path: Path
) -> None:
    for name, image in forms(grey, tmp_path).items():
        reading = odia.read(image)
        assert isinstance(reading, Reading), name
        assert reading.text == text, name


def test_a_list_in_any_mixture_gives_a_list_in_order(
    odia: Any, grey: Pixels, text: str, tmp_path: Path
) -> None:
    images = list(forms(grey, tmp_path).values())
    assert [reading.text for reading in odia.read(images)] == [text] * len(images)
    assert odia.read([]) == []
    assert [r.text for r in odia.read(tuple(forms(grey, tmp_path).values()))] == [text] * len(
        images
    )
    assert [r.text for r in odia.read(grey for _ in range(2))] == [text] * 2
    assert [r.text for r in odia.read(np.stack([grey] * 2)[..., None])] == [text] * 2


def test_black_and_white_pictures_read_alike_as_bool_and_as_numbers(
    odia: Any, grey: Pixels
) -> None:
    white = grey > 128
    expected = odia.read(white.astype(np.uint8) * 255)
    assert expected.text
    for image in (white, white.astype(np.int32), white.astype(float), Image.fromarray(white)):
        assert odia.read(image) == expected


def test_transparency_is_laid_over_as_in_a_file(odia: Any, grey: Pixels, text: str) -> None:
    """Black letters that only the alpha channel draws."""
    layer = np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey])
    assert odia.read(layer) == odia.read(png(layer))
    assert odia.read(layer).text == text


def test_a_turned_photograph_is_read_upright_as_from_its_file(odia: Any, grey: Pixels) -> None:
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(grey[::-1, ::-1].copy()).save(turned, "PNG", exif=exif)
    image = Image.open(turned)
    assert odia.read(image) == odia.read(turned.getvalue()) == odia.read(grey)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "expected a path, the bytes of a file, a Pillow image.*got NoneType"),
        (7, "got int"),
        ([b"", None], "image 1 of 2: empty file"),
        ("no-such.png", "no-such.png: unreadable file"),
        (np.zeros((0, 4), np.uint8), r"expected an array \[height, width\].*got \[0, 4\]"),
        (np.zeros((3, 40, 90), np.uint8), r"colours last; got \[3, 40, 90\]"),
        (np.full((20, 20), np.nan), "expected 0…1 or 0…255, got nan"),
        (np.full((20, 20), -1.0), "got -1…-1"),
        (np.full((20, 20), 1 << 20), "expected 0…255 or 0…65535"),
        (np.array([["a", "b"]]), "an array of <U1"),
        (Image.new("L", (0, 5)), "0×5 pixels"),
        ([["a.png"]], "image 1 of 1: expected a path.*got list"),
    ],
    ids=range(12),
)
def test_what_is_no_image_is_refused_by_name(odia: Any, image: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        odia.read(image)


def test_pages_of_a_pillow_image_are_read_one_at_a_time(odia: Any, grey: Pixels, text: str) -> None:
    buffer = io.BytesIO()
    blank = Image.new("L", (grey.shape[1], grey.shape[0]), 255)
    blank.save(buffer, "TIFF", save_all=True, append_images=[Image.fromarray(grey)])
    pages = Image.open(buffer)
    with pytest.raises(ImageRefused, match="several frames: 2"):
        odia.read(pages)
    pages.seek(1)
    assert odia.read(pages).text == text


def test_a_recogniser_of_colour_takes_grey_and_a_vote_takes_everything(
    odia: Any, grey: Pixels, text: str, tmp_path: Path
) -> None:
    class Colour(PixelReader):
        image_mode = "RGB"

        def read_pixels(self, images: Any) -> list[Reading]:
            return [Reading(str(image.shape), 1.0) for image in images]

    for image in forms(grey, tmp_path).values():
        assert Colour().read(image).text == str((*grey.shape, 3))
    vote = load_all("odia,odia")
    assert vote.read(png(grey)).text == vote.read([grey])[0].text == text


def test_pixels_that_are_ready_are_passed_on_as_they_are(
    odia: CtcRecognizer, grey: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[Any] = []
    monkeypatch.setattr(odia, "read_pixels", lambda images: passed.extend(images) or [])
    odia.read([grey, grey])
    assert all(image is grey for image in passed) and len(passed) == 2


def test_the_lines_of_the_readme_work_as_typed(grey: Pixels, text: str, tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    assert len(code.split("\n\n")) == 2 and len(code.split()) < 12
    (tmp_path / "line.png").write_bytes(png(grey))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{text} 0.")
