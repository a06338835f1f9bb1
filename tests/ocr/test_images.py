"""Images come in within limits, whatever the file does."""

import io
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr.images import (
    ImageRefused,
    edge_grey,
    encode_image,
    image_size,
    open_image,
    scale_to_height,
    to_ink,
    trim_rows,
)
from ocr.limits import ImageLimits
from tests.support.bombs import many_scans, noise


def png(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


WHOLE = png(Image.effect_noise((60, 20), 60))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (WHOLE[:33], "not a readable image"),
        (WHOLE[: len(WHOLE) // 2], "not a readable image"),
        (b"not an image", "not a readable image"),
        (WHOLE[:200] + bytes([WHOLE[200] ^ 1]) + WHOLE[201:], "not a readable image"),
        (png(Image.new("L", (3, 3))), "image too small"),
        (png(Image.new("L", (9000, 9000))), "image too large"),
        (png(Image.new("L", (9000, 8))), "image too narrow"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRefused) as caught:
        open_image(data, where="page 3")
    assert caught.value.reason == reason
    assert "page 3" in str(caught.value)


def test_a_small_file_of_81_megapixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(Image.new("L", (9000, 9000)), optimize=True))
    assert bomb.stat().st_size < 100_000
    code = (
        "import resource, sys; from pathlib import Path; from ocr.images import open_image, "
        "ImageRefused\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try:\n    open_image(Path({str(bomb)!r}))\nexcept ImageRefused:\n    "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown_kib = int(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )
    assert grown_kib < 20_000
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0


def test_transparency_lies_over_white_and_sixteen_bits_keep_their_range() -> None:
    clear = Image.new("LA", (8, 8), (0, 0))
    assert open_image(png(clear)).min() == 255
    deep = Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8))
    pixels = open_image(png(deep))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) > 50


@pytest.mark.parametrize(
    ("kind", "top"),
    [(np.float32, 1), (np.float32, 255), (np.float32, 1e5), (np.int32, 65535), (np.int32, 2**30)],
)
def test_grey_of_32_bits_keeps_its_range(kind: type, top: float) -> None:
    values = np.linspace(0, top, 64).reshape(8, 8).astype(kind)
    pixels = open_image(png(Image.fromarray(values), "TIFF"))
    assert np.abs(pixels - np.linspace(0, 255, 64).reshape(8, 8)).max() <= 1


def test_a_value_that_is_no_number_is_black() -> None:
    values = np.array([[np.nan, 0.5], [np.inf, 1.0]] * 4, np.float32).repeat(4, 1)
    assert open_image(png(Image.fromarray(values), "TIFF"))[0].tolist() == [0] * 4 + [128] * 4


@pytest.mark.parametrize("format", ["JPEG2000", "AVIF", "WEBP", "BMP", "GIF", "PPM"])
def test_every_format_is_read_as_it_was_written(format: str) -> None:
    ramp = np.linspace(0, 255, 64 * 32).reshape(32, 64).astype(np.uint8)
    data = png(Image.fromarray(ramp), format)
    assert image_size(data) == (64, 32)
    assert np.abs(open_image(data).astype(int) - ramp).mean() < 3
    with pytest.raises(ImageRefused, match="image too large"):
        open_image(data, limits=ImageLimits(max_pixels=1000))
    with pytest.raises(ImageRefused):
        open_image(data[: len(data) // 2])


def test_a_photograph_rotated_by_its_exif_is_upright_in_pixels_and_in_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = png(Image.new("RGB", (60, 20)), "JPEG", exif=exif)
    assert open_image(turned).shape == (60, 20)
    assert image_size(turned) == (20, 60)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "CMYK", "1"])
def test_every_kind_of_pixel_becomes_grey_or_rgb(mode: str) -> None:
    data = png(Image.new(mode, (20, 10)), "TIFF")
    assert open_image(data).shape == (10, 20)
    assert open_image(data, "RGB").shape == (10, 20, 3)


def test_scaling_keeps_the_aspect_and_at_least_a_column() -> None:
    assert scale_to_height(np.zeros((64, 100), np.uint8), 32).shape == (32, 50)
    assert scale_to_height(np.zeros((640, 4), np.uint8), 32).shape == (32, 1)
    assert scale_to_height(np.zeros((64, 600), np.uint8), 64, max_width_px=248).shape == (64, 248)
    assert scale_to_height(np.zeros((64, 100), np.uint8), 64, max_width_px=248).shape == (64, 100)


@pytest.mark.parametrize(("paper", "pen"), [(255, 0), (200, 90), (0, 255), (40, 180)])
def test_ink_is_positive_whatever_the_polarity_and_contrast(paper: int, pen: int) -> None:
    pixels = np.full((16, 40), paper, np.uint8)
    pixels[6:10, 10:30] = pen
    ink = to_ink(pixels)
    assert ink.shape == (1, 16, 40)
    assert edge_grey(pixels) == paper
    assert ink[0, 0, 0] == 0
    assert ink[0, 8, 20] == pytest.approx(1.0)


def test_an_encoded_image_is_the_image() -> None:
    pixels = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
    assert np.array_equal(open_image(encode_image(pixels)), pixels)


@pytest.mark.parametrize(("paper", "pen"), [(255, 0), (30, 220)])
def test_empty_rows_are_trimmed_and_a_dot_above_is_not(paper: int, pen: int) -> None:
    pixels = np.full((40, 60), paper, np.uint8)
    pixels[15:28, 10:50] = pen
    pixels[10:12, 30:32] = pen  # a chandrabindu's dot
    pixels[3, 5] = pen  # a speck
    trimmed = trim_rows(pixels)
    assert np.array_equal(trimmed, pixels[8:30])


def test_an_empty_or_thin_image_keeps_its_height() -> None:
    blank = np.full((40, 60), 200, np.uint8)
    assert trim_rows(blank).shape == (40, 60)
    blank[20, 10:50] = 0  # a dash
    assert trim_rows(blank).shape[0] == 16


def test_a_jpeg_of_many_scans_is_refused_and_a_film_after_one_is_no_scan() -> None:
    with pytest.raises(ImageRefused, match="a JPEG of more than 100 scans"):
        open_image(many_scans(64, 100))
    for progressive in (False, True):
        buffer = io.BytesIO()
        picture = Image.fromarray(noise(60, 80)).convert("RGB")
        picture.save(buffer, "JPEG", progressive=progressive, comment=many_scans(64, 200))
        film = b"\xff\xda" * 200
        assert open_image(buffer.getvalue() + film).shape == (60, 80)
