"""The only pixel code before a model: open within limits, turn to grey, scale to a line height.

Legend: H, W in pixels; arrays are uint8, [H, W] for grey and [H, W, 3] for RGB.
"""

import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from ocr.errors import ImageRefused as ImageRefused
from ocr.jpeg import require_few_scans
from ocr.limits import FORMATS, ImageLimits
from ocr.pixels import Mode as Mode
from ocr.pixels import Pixels as Pixels
from ocr.pixels import page_frames, to_pixels

Polygon = NDArray[np.float64]  # [N, 2]: x, y in pixels, y downwards
ValueT = TypeVar("ValueT")
_EXIF_ORIENTATION = 0x0112
NO_MEMORY = "decoding it takes more memory than there is; scale it down"
_STRONG_INK = 0.35  # share of the strongest ink


def open_image(
    source: bytes | Path,
    mode: Mode = "L",
    limits: ImageLimits | None = None,
    where: str | None = None,
    upright: bool = True,
) -> Pixels:
    """Decode the image of a file, upright by its EXIF unless it is to be as it is stored.

    Raises ImageRefused, whatever the file holds: its size is checked against `limits` before any
    pixel is decoded. A file of several pages, or an animation, is refused.
    """

    def pixels(image: Image.Image) -> Pixels:
        return to_pixels(ImageOps.exif_transpose(image) if upright else image, mode)

    return _opened(source, pixels, limits, where)


def orientation_of(source: bytes, limits: ImageLimits) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where there is none or no image."""
    try:
        turned = _opened(source, _orientation, limits, None)
    except ImageRefused:
        return 1
    return turned if isinstance(turned, int) and 1 <= turned <= 8 else 1


def image_size(
    source: bytes | Path, limits: ImageLimits | None = None, where: str | None = None
) -> tuple[int, int]:
    """Return width and height in pixels, upright by the EXIF, from the file's header alone.

    Raises ImageRefused as `open_image` does.
    """
    return _opened(source, _upright_size, limits, where)


def _opened(
    source: bytes | Path,
    use: Callable[[Image.Image], ValueT],
    limits: ImageLimits | None,
    where: str | None,
) -> ValueT:
    where = where or (str(source) if isinstance(source, Path) else "image")
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
    except OSError as problem:
        raise ImageRefused(where, "unreadable file", problem.strerror or str(problem)) from None
    if not data:
        raise ImageRefused(where, "empty file", "0 bytes; make the file again")
    limits = limits or ImageLimits()
    require_few_scans(data, limits, where)
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb and metadata warnings; our limits decide
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.size, limits, where)
                _check_frames(image, where)
                return use(image)
    except ImageRefused:
        raise
    except Image.DecompressionBombError as problem:
        raise ImageRefused(where, "image too large", str(problem)) from None
    except MemoryError:
        raise ImageRefused(where, "image too large", NO_MEMORY) from None
    except UnidentifiedImageError:  # Pillow's message holds a memory address, another one each time
        raise ImageRefused(where, "not a readable image", f"none of {', '.join(FORMATS)}") from None
    except Exception as problem:  # noqa: BLE001  decoders raise anything from SyntaxError to struct.error on a damaged file
        raise ImageRefused(
            where, "not a readable image", str(problem) or type(problem).__name__
        ) from None


def _orientation(image: Image.Image) -> object:
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(_EXIF_ORIENTATION, 1) >= 5 else (width, height)


def encode_image(
    pixels: Pixels, format: Literal["PNG", "WEBP", "JPEG"] = "PNG", quality: int = 90
) -> bytes:
    """Encode a grey or RGB array as an image file."""
    buffer = io.BytesIO()
    options = {"WEBP": {"quality": quality, "method": 6}, "JPEG": {"quality": quality}}.get(
        format, {}
    )
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def scale_to_height(
    pixels: Pixels, height_px: int, max_width_px: int | None = None, stretch: float = 1.0
) -> Pixels:
    """Scale to `height_px`, keeping the aspect times `stretch`; at least one column wide.

    An image that would be wider than `max_width_px` is squeezed to that width.
    """
    height, width = pixels.shape[:2]
    scaled_px = max(1, round(width * stretch * height_px / height))
    size = (scaled_px if max_width_px is None else min(scaled_px, max_width_px), height_px)
    if size == (width, height):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def scale_to_fit(pixels: Pixels, max_side_px: int) -> Pixels:
    """Scale down, keeping the aspect, until the longer side is at most `max_side_px`."""
    height, width = pixels.shape[:2]
    if max(height, width) <= max_side_px:
        return pixels
    factor = max_side_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def box_of(polygon: Polygon) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the upright rectangle around a polygon."""
    left, top = map(math.floor, polygon.min(axis=0))
    right, bottom = map(math.ceil, polygon.max(axis=0))
    return left, top, right - left, bottom - top


def cut(page: Pixels, polygon: Polygon, degrees: float = 0.0) -> Pixels:
    """Return the part of a page inside a polygon, upright; around it the median colour of its box.

    `degrees` is the direction of the writing, clockwise on the page from left to right; quarter
    turns lose no pixel. ImageRefused when the polygon has no area on the page.
    """
    # coordinates in other units come with rounding noise, damaged files with points far away
    polygon = polygon.round(3).clip(-1e6, 1e6)
    left, top, wide, high = box_of(polygon)
    right, bottom = left + wide, top + high
    height, width = page.shape[:2]
    if wide <= 0 or high <= 0 or _area(polygon) < 1:
        raise ImageRefused("polygon", "polygon without area", f"it spans {wide}×{high} pixels")
    box = (max(0, left), max(0, top), min(width, right), min(height, bottom))
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ImageRefused(
            "polygon",
            "polygon outside the image",
            f"x {left}–{right}, y {top}–{bottom} on an image of {width}×{height} pixels",
        )
    part, inner = page[box[1] : box[3], box[0] : box[2]], polygon - box[:2]
    part, background = _filled_around(part, inner)
    quarters, rest = divmod(degrees + 45, 90)
    if abs(rest - 45) < 1e-6:
        return np.ascontiguousarray(np.rot90(part, int(quarters) % 4))
    return _turned(part, inner, degrees, background)


def _area(polygon: Polygon) -> float:
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _filled_around(part: Pixels, polygon: Polygon) -> tuple[Pixels, tuple[int, ...]]:
    """Return the part with its median colour around the polygon, and that colour.

    The median is of the whole part: inside a tight polygon most may be ink.
    """
    mask = Image.new("1", (part.shape[1], part.shape[0]))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in polygon], fill=1, outline=1)
    inside = np.asarray(mask)
    if not inside.any():
        raise ImageRefused(
            "polygon", "polygon outside the image", "no pixel of the image lies in it"
        )
    background = np.median(part.reshape(-1, *part.shape[2:]), axis=0).astype(np.uint8)
    if not inside.all():
        part = np.where(inside if part.ndim == 2 else inside[..., None], part, background)
    return part, tuple(int(value) for value in np.atleast_1d(background))


def _turned(part: Pixels, polygon: Polygon, degrees: float, background: tuple[int, ...]) -> Pixels:
    """Rotate by -degrees about the centre and crop to the rotated polygon."""
    fill = background[0] if len(background) == 1 else background
    turned = np.asarray(
        Image.fromarray(part).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=fill)
    )
    angle = np.deg2rad(degrees)
    centre = np.array([part.shape[1], part.shape[0]]) / 2
    corners = np.clip(polygon, 0, 2 * centre) - centre
    positions = (
        corners @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        + np.array([turned.shape[1], turned.shape[0]]) / 2
    )
    (left, top), (right, bottom) = (
        np.floor(positions.min(axis=0)).astype(int),
        np.ceil(positions.max(axis=0)).astype(int),
    )
    return np.ascontiguousarray(turned[max(0, top) : max(1, bottom), max(0, left) : max(1, right)])


def trim_rows(pixels: Pixels) -> Pixels:
    """Cut off the empty rows above and below the ink, but for a small margin.

    So letters fill a line's height however it was cropped. A row counts as ink from two strong
    pixels (or one in 200 columns) on; at least two fifths of the height stay.
    """
    ink_HW = to_ink(pixels).mean(axis=0)
    height, width = ink_HW.shape
    rows = np.flatnonzero((ink_HW > _STRONG_INK).sum(axis=1) >= max(2, width // 200))
    if not len(rows):
        return pixels
    margin = max(1, round(height * 0.06))
    top, bottom = max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)
    lacking = max(0, -(-2 * height // 5) - (bottom - top))
    top = max(0, top - (lacking + 1) // 2)
    return pixels[top : max(bottom, min(height, bottom + lacking // 2))]


def edge_grey(pixels: Pixels) -> float:
    """Return the background: the median of the outermost columns and rows, 0–255."""
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    # np.median takes five times as long, in three calls per sample
    border = np.sort(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    return (float(border[(len(border) - 1) // 2]) + float(border[len(border) // 2])) / 2


def _check_frames(image: Image.Image, where: str) -> None:
    count = len(page_frames(image))
    if count > 1 and image.format == "TIFF":
        advice = "split it (the endpoint's level=page reads them all)"
        raise ImageRefused(where, "several pages", f"{count} pages in one file; {advice}")
    if count > 1:
        advice = "save the one with the text"
        raise ImageRefused(where, "several frames", f"an animation of {count} frames; {advice}")


def _check_size(size: tuple[int, int], limits: ImageLimits, where: str) -> None:
    width, height = size
    size_text = f"{width}×{height} pixels"
    if min(size) < limits.min_side_px:
        raise ImageRefused(
            where,
            "image too small",
            f"{size_text}; at least {limits.min_side_px} a side are needed",
        )
    if max(size) > limits.max_side_px or width * height > limits.max_pixels:
        raise ImageRefused(
            where,
            "image too large",
            f"{size_text}; the limits are {limits.max_pixels:,} pixels and {limits.max_side_px:,} "
            "a side; crop or scale it down",
        )
    if max(size) / min(size) > limits.max_aspect:
        raise ImageRefused(
            where,
            "image too narrow",
            f"{size_text}; the longer side may be {limits.max_aspect:g} times the shorter",
        )


def to_ink(pixels: Pixels) -> NDArray[np.float32]:
    """Return ink as fp32 [C, H, W]: 0 is the background's grey, about 1 the strongest ink.

    Polarity and contrast do not matter. Padding with zeros is padding with the edge's grey.
    """
    layers = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    ink = edge_grey(pixels) - layers.astype(np.float32)
    if ink.mean() < 0:
        ink = -ink
    ink /= max(32.0, float(ink.max()))
    return ink
