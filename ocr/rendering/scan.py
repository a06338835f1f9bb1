"""What scanners and copiers do to a line: fading, thresholds, JPEG, patterns behind the text.

Every kind has random numbers of its own, as clutter has, so the share of one changes neither the
others nor an image without any.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ocr.images import Pixels
from ocr.keyed import fixed_generator
from ocr.rendering.draws import Draws
from ocr.sources.settings import SyntheticSettings

Grey = NDArray[np.float32]  # [H, W], 0 black to 255


def scanned(grey_HW: Grey, settings: SyntheticSettings, draws: Draws) -> Pixels:
    """Return the image after the scanner that the settings' shares give it."""
    pattern = draws.chosen("pattern", settings.pattern_share)
    if pattern:
        grey_HW = _over_pattern(grey_HW, pattern)
    fade = draws.chosen("fade", settings.fade_share)
    if fade:
        grey_HW = _faded(grey_HW, fade)
    threshold = draws.chosen("bilevel", settings.bilevel_share)
    if threshold and not fade:  # what has faded would be gone
        grey_HW = _bilevel(grey_HW, threshold)
    pixels = np.clip(grey_HW, 0, 255).astype(np.uint8)
    jpeg = draws.chosen("jpeg", settings.jpeg_share)
    return _compressed(pixels, round(jpeg.uniform(30, 80))) if jpeg else pixels


def _faded(grey_HW: Grey, draws: Draws) -> Grey:
    """Return the line paler in one or two stretches, as a worn drum or a fold leaves it."""
    columns = np.arange(grey_HW.shape[1], dtype=np.float32) / grey_HW.shape[1]
    kept = np.ones_like(columns)
    for _ in range(1 + draws.below(2)):
        middle, reach = draws.uniform(), draws.uniform(0.04, 0.3)
        depth = draws.uniform(0.3, 0.75)
        kept *= 1 - depth * np.exp(-(((columns - middle) / reach) ** 2))
    paper = float(np.percentile(grey_HW, 90))
    return np.asarray(paper + (grey_HW - paper) * kept[None, :], np.float32)


def _bilevel(grey_HW: Grey, draws: Draws) -> Grey:
    """Return black on white: strokes broken by a low threshold, or filled by a high one.

    The edges are ragged by noise before the threshold, and specks follow it.
    """
    image = Image.fromarray(np.clip(grey_HW, 0, 255).astype(np.uint8))
    blur_px = draws.uniform(0.2, 1.2) * grey_HW.shape[0] / 72
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(blur_px)), dtype=np.float32)
    low, high = float(np.percentile(soft, 1)), float(np.percentile(soft, 90))
    random = fixed_generator(round(draws.uniform() * 2**52))
    ragged = draws.uniform(0.0, 0.09) * (high - low)
    noise = random.standard_normal(soft.shape, dtype=np.float32)
    level = low + (high - low) * draws.uniform(0.35, 0.64)
    ink = soft + ragged * noise < level
    specks = random.random(soft.shape, dtype=np.float32) < draws.uniform(0.0, 0.002)
    white, black = draws.uniform(235, 255), draws.uniform(0, 40)
    return np.where(ink ^ specks, black, white).astype(np.float32)


def _over_pattern(grey_HW: Grey, draws: Draws) -> Grey:
    """Return the line over soft shapes as large as the line, as photographs behind text have."""
    height, width = grey_HW.shape
    cells = (2 + draws.below(3), 2 + round(width / height * draws.uniform(0.5, 2)))
    random = fixed_generator(round(draws.uniform() * 2**52))
    coarse = (255 * random.random(cells, dtype=np.float32)).astype(np.uint8)
    sharp = Image.Resampling.NEAREST if draws.uniform() < 0.3 else Image.Resampling.BICUBIC
    shapes = Image.fromarray(coarse).resize((width, height), sharp)
    if draws.uniform() < 0.7:
        shapes = shapes.filter(ImageFilter.GaussianBlur(draws.uniform(0.5, height / 8)))
    shade = np.asarray(shapes, dtype=np.float32) * (draws.uniform(20, 110) / 255)
    paper = float(np.percentile(grey_HW, 90))
    darkest = float(grey_HW.min())
    behind = np.maximum(paper - shade, darkest + 0.45 * (paper - darkest))
    return np.asarray(np.minimum(grey_HW, behind), np.float32)


def _compressed(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("L"))
