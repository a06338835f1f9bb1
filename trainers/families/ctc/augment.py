"""Augmentation of line images on a CPU: one warp, one blur, one noise addition per image.

It takes about a third of a millisecond. Every parameter is sampled from the sample's own key, so an
image does not depend on its batch.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ocr.images import Pixels, edge_grey
from ocr.keyed import generator
from trainers.config import AugmentSettings

_BANK_SIDE = 1 << 16


def augment(pixels: Pixels, settings: AugmentSettings, *key: int | str) -> Pixels:
    """Return the image, augmented by random numbers of `key` (seed, epoch, id); same size."""
    if settings.strength == 0:
        return pixels
    random = generator("augment", *key)
    image = _warp(Image.fromarray(pixels), settings, random, edge_grey(pixels))
    image = _soften(_stroke(image, settings, random), settings, random)
    return _tone(np.asarray(image), settings, random)


def _warp(
    image: Image.Image, settings: AugmentSettings, random: np.random.Generator, background: float
) -> Image.Image:
    """Rotate, slant, squeeze and shift by one affine map about the centre (output → input)."""
    s = settings.strength
    angle = np.radians(random.uniform(-1, 1) * settings.rotation_degrees * s) * min(
        1.0, 4 * image.height / image.width
    )
    slant = random.uniform(-1, 1) * settings.shear * s
    scale_x, scale_y = 1 + random.uniform(-0.3, 1, 2) * settings.squeeze * s
    centre_x, centre_y = image.width / 2, image.height / 2
    shift_x, shift_y = random.uniform(-1, 1, 2) * (2.0, 1.5) * s
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[scale_x, slant], [0, scale_y]])
    offset = np.array([centre_x + shift_x, centre_y + shift_y]) - matrix @ np.array(
        [centre_x, centre_y]
    )
    data = (matrix[0, 0], matrix[0, 1], offset[0], matrix[1, 0], matrix[1, 1], offset[1])
    fill: int | tuple[int, ...] = int(background) if image.mode == "L" else (int(background),) * 3
    return image.transform(
        image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=fill
    )


def _stroke(
    image: Image.Image, settings: AugmentSettings, random: np.random.Generator
) -> Image.Image:
    """Sometimes add or remove one pixel of ink, blended by a random share."""
    chance, thicker, share = random.random(), random.random() < 0.5, random.uniform(0.3, 1)
    if chance >= settings.stroke * settings.strength:
        return image
    changed = image.filter(ImageFilter.MinFilter(3) if thicker else ImageFilter.MaxFilter(3))
    return Image.blend(image, changed, share if thicker else share * 0.6)


def _soften(
    image: Image.Image, settings: AugmentSettings, random: np.random.Generator
) -> Image.Image:
    """Blur some images, and lower the resolution of others."""
    kind, amount = random.random(), random.random()
    if kind < 0.35 and settings.blur_px:
        return image.filter(ImageFilter.GaussianBlur(amount * settings.blur_px * settings.strength))
    if kind < 0.6 and settings.low_resolution:
        factor = 1 - amount * min(0.9, settings.low_resolution * settings.strength)
        small = (max(4, round(image.width * factor)), max(4, round(image.height * factor)))
        return image.resize(small, Image.Resampling.BILINEAR).resize(
            image.size, Image.Resampling.BILINEAR
        )
    return image


def _tone(pixels: Pixels, settings: AugmentSettings, random: np.random.Generator) -> Pixels:
    """Change contrast and brightness, add noise from the bank, and sometimes invert."""
    s = settings.strength
    contrast, brightness = 1 - random.uniform(0, 0.5) * min(1.0, s), random.uniform(-25, 25) * s
    deviation = 255 * settings.noise * s * random.random() ** 2
    values = (pixels.astype(np.float32) - 127.5) * contrast + (127.5 + brightness)
    bank = noise_bank()
    start = int(random.integers(0, len(bank) - pixels.size)) if pixels.size < len(bank) else 0
    values += deviation * np.resize(bank[start : start + pixels.size], pixels.shape)
    if random.random() < settings.invert * s:
        values = 255 - values
    out: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    return out


@lru_cache(maxsize=1)
def noise_bank() -> NDArray[np.float32]:
    """Return unit normal noise, sampled once; an image uses it from a random position on."""
    return generator("noise bank").standard_normal(_BANK_SIDE * 4).astype(np.float32)
