"""Degraded copies of real crops for `aug_copies`: rotated, blurred, faded, noisy; keyed by id."""

import numpy as np
from PIL import Image, ImageFilter

from ocr.images import Pixels, edge_grey
from ocr.keyed import text_generator

_END_SHIFT = 0.05  # most shift of a line's ends, up or down, as a share of the height
_DEGREES, _BLUR_PX, _NOISE, _CONTRAST = 2.0, 1.0, 8.0, (0.6, 1.0)


def degraded(pixels: Pixels, key: str) -> Pixels:
    """Return a copy of the same size and mode; equal keys give equal copies."""
    random = text_generator(key)
    paper = edge_grey(pixels)
    fill = round(paper) if pixels.ndim == 2 else (round(paper),) * 3
    # a long line would leave its image
    most = min(
        _DEGREES, float(np.degrees(np.arctan(2 * _END_SHIFT * pixels.shape[0] / pixels.shape[1])))
    )
    image = Image.fromarray(pixels).rotate(
        random.uniform(-most, most), Image.Resampling.BICUBIC, fillcolor=fill
    )
    image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, _BLUR_PX)))
    faint = paper + (np.asarray(image, dtype=np.float32) - paper) * random.uniform(*_CONTRAST)
    noise = random.standard_normal(pixels.shape[:2], dtype=np.float32) * random.uniform(0, _NOISE)
    return np.clip(faint + (noise if pixels.ndim == 2 else noise[..., None]), 0, 255).astype(
        np.uint8
    )
