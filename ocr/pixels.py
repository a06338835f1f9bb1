"""A decoded image → grey or RGB: transparency, 16-bit grey, and the frames of a file.

Legend: H, W in pixels; arrays are uint8, [H, W] for grey and [H, W, 3] for RGB.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Mode = Literal["L", "RGB", "as it is"]
_TRANSPARENT = ("LA", "PA", "RGBA", "RGBa", "La")
_LEAST_CONTRAST = 48  # grey levels between ink and paper; with less, letters may be lost
_SUBFILE_TYPE, _IS_SMALLER_COPY = 254, 1  # TIFF 6.0, NewSubfileType
_WITH_FRAMES = ("TIFF", "GIF", "WEBP", "PNG", "AVIF")  # a JPEG's further pictures are no pages


def page_frames(image: Image.Image) -> list[int]:
    """Return the indices of a file's frames, without a TIFF's small copies of a page."""
    if image.format not in _WITH_FRAMES:
        return [0]
    frames = list(range(int(getattr(image, "n_frames", 1))))
    if image.format != "TIFF" or len(frames) == 1:
        return frames
    pages = [frame for frame in frames if not _is_smaller_copy(image, frame)]
    image.seek(0)
    return pages or frames


def _is_smaller_copy(image: Image.Image, frame: int) -> bool:
    image.seek(frame)
    return bool(image.tag_v2.get(_SUBFILE_TYPE, 0) & _IS_SMALLER_COPY)  # type: ignore[attr-defined]


def to_pixels(image: Image.Image, mode: Mode) -> Pixels:
    """Return the pixels of an image, what is transparent over white.

    Letters that white would hide are laid over black. Mode `as it is`: grey stays grey, everything
    else becomes RGB.
    """
    if mode == "as it is":
        is_grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
        mode = "L" if is_grey else "RGB"
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image, mode)
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return np.asarray(image.convert(mode))
    layer = image.convert("RGBA")
    pixels = _over("white", layer, mode)
    is_opaque = contrast(np.asarray(layer.getchannel("A"))) == 0
    if is_opaque or contrast(pixels) >= _LEAST_CONTRAST:
        return pixels
    over_black = _over("black", layer, mode)
    return over_black if contrast(over_black) > 2 * contrast(pixels) else pixels


def contrast(pixels: Pixels) -> int:
    """Return the difference between the lightest and the darkest value, 0–255."""
    return int(pixels.max(initial=0)) - int(pixels.min(initial=255))


def _over(colour: str, layer: Image.Image, mode: str) -> Pixels:
    return np.asarray(
        Image.alpha_composite(Image.new("RGBA", layer.size, colour), layer).convert(mode)
    )


def _from_deep(image: Image.Image, mode: Mode) -> Pixels:
    """Scale 16- and 32-bit grey by its range: 0–1, 0–255, 0–65535, or its own highest value.

    Pillow's convert would clip it at 255.
    """
    deep = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0)
    high = float(deep.max(initial=0))
    top = next((top for top in (1.0, 255.0, 65535.0) if high <= top), high)
    grey = np.clip(deep * (255.0 / top), 0, 255).round().astype(np.uint8)
    return grey if mode == "L" else np.repeat(grey[:, :, None], 3, axis=2)
