"""What a program holds (paths, bytes, Pillow images, NumPy arrays) → the pixels of a recogniser.

Legend: N images, H, W in pixels, C channels.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, open_image
from ocr.pixels import Mode, to_pixels
from ocr.settings import with_home

ImageLike = str | Path | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
KINDS = "a path, the bytes of a file, a Pillow image, a NumPy array, or a list of these"


def is_ready(image: object, mode: Mode) -> TypeGuard[Pixels]:
    """Return whether these are pixels as `ocr.images.open_image` gives them in this mode."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and (image.ndim == 2 if mode == "L" else image.ndim == 3 and image.shape[2] == 3)
        and image.size > 0
    )


def is_one(images: object) -> TypeGuard[ImageLike]:
    """Return whether this is one image, not several.

    An array [N, H, W, C] is several; so is everything that can be iterated and is no image.
    """
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)):
        return True
    if isinstance(images, np.ndarray) or hasattr(images, "__array__"):
        return np.ndim(images) != 4 and np.asarray(images).dtype != object
    return hasattr(images, "read") or not isinstance(images, Iterable)


def pixels_of(image: object, mode: Mode, where: str = "image") -> Pixels:
    """Return the pixels of one image.

    Raises ImageRefused for a file or an array that is no image, UserError for another type.
    """
    if is_ready(image, mode):
        return image
    if isinstance(image, (str, os.PathLike)):
        return open_image(Path(with_home(os.fspath(image))), mode)
    if isinstance(image, Image.Image):
        return _of_pillow(image, mode, where)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return open_image(bytes(image), mode, where=where)
    if hasattr(image, "__array__"):
        return to_pixels(Image.fromarray(_whole_numbers(np.asarray(image), where)), mode)
    if hasattr(image, "read") and isinstance(data := image.read(), bytes):
        return open_image(data, mode, where=where)
    raise UserError(f"{where}: expected {KINDS}; got {type(image).__name__}")


def _of_pillow(image: Image.Image, mode: Mode, where: str) -> Pixels:
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1 and image.tell() == 0:
        advice = "give the copy() of each (image.seek(1) is the second)"
        raise ImageRefused(where, "several frames", f"{frames} in one Pillow image; {advice}")
    if not min(image.size):
        raise ImageRefused(where, "empty image", f"{image.width}×{image.height} pixels")
    return to_pixels(ImageOps.exif_transpose(image), mode)


def _whole_numbers(array: NDArray[Any], where: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return an array as Pillow takes it; grey of 16 bits stays so."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageRefused(
            where,
            "not an image's shape",
            f"expected an array [height, width], or [height, width, 1, 3 or 4] with colours last; "
            f"got {list(array.shape)}",
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "biuf":
        raise ImageRefused(where, "not an image's values", f"an array of {array.dtype}")
    return _scaled(array, where)


def _scaled(array: NDArray[Any], where: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Scale to 0–255 by the range of the values: 0–1, 0–255 or 0–65535."""
    low, high = float(array.min()), float(array.max())
    top = next((top for top in (1, 255, 65535) if low >= 0 and high <= top), None)
    if top is None or (top == 65535 and array.dtype.kind == "f"):
        expected = "0…1 or 0…255" if array.dtype.kind == "f" else "0…255 or 0…65535"
        raise ImageRefused(
            where, "not an image's values", f"expected {expected}, got {low:g}…{high:g}"
        )
    if array.dtype.kind == "f" or top != 1:
        return np.rint(array * (255.0 / top)).astype(np.uint8)
    return array.astype(np.uint8) * np.uint8(255)  # True and 1 are white
