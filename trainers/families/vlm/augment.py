"""Augmentation with kornia on the batch's device: warp, elastic deformation, blur, light and noise.

Every parameter and every field of noise is sampled on the CPU from the sample's own key, and
torch's generators are not used. An image therefore does not depend on its batch or its position in
it, nor on the device beyond rounding.

Legend: B is 1, C is 3 (RGB), H and W in pixels. "Ink" is the image minus its paper, in 0–1; outside
the image ink is 0, which is paper.
"""

import math

import numpy as np
import torch
from kornia.enhance import adjust_brightness, adjust_contrast_with_mean_subtraction
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import elastic_transform2d, get_rotation_matrix2d, warp_affine
from torch import Tensor

from ocr.keyed import generator
from trainers.config.kornia import KorniaSettings

_ELASTIC_SIGMA_PX = 8.0  # about half a letter: letters bend, strokes stay whole
_BLURRED_SHARE = 0.4


def disturb(image_CHW: Tensor, settings: KorniaSettings, *key: int | str) -> Tensor:
    """Return a uint8 RGB image, augmented, as float32 in 0–255 on its device; same size.

    Random numbers are keyed by `key` (seed, epoch, sample id).
    """
    if settings.strength == 0:
        return image_CHW.float()
    random = generator("kornia", *key)
    values = image_CHW[None].float() / 255
    paper = _paper(values)
    with torch.autocast(
        image_CHW.device.type, enabled=False
    ):  # in bfloat16 the elastic field would be another one
        ink = _warped(values - paper, settings, random)
        ink = _blurred(_bent(ink, settings, random), settings, random)
        values = _noisy(_lit(ink + paper, settings, random), settings, random)
    return values[0].clamp(0, 1) * 255


def _paper(values_BCHW: Tensor) -> Tensor:
    """Return the median of the outermost rows and columns, for each channel, [B, C, 1, 1].

    Sorted, because CUDA has no deterministic torch.median.
    """
    border = (
        torch.cat(
            [
                values_BCHW[..., 0, :],
                values_BCHW[..., -1, :],
                values_BCHW[..., 0],
                values_BCHW[..., -1],
            ],
            dim=2,
        )
        .sort(dim=2)
        .values
    )
    middle = border.shape[2] // 2
    return border[:, :, middle - 1 : middle + 1].mean(dim=2)[..., None, None]


def _warped(ink_BCHW: Tensor, settings: KorniaSettings, random: np.random.Generator) -> Tensor:
    """Rotate and scale by one warp about the centre.

    A line longer than four times its height is rotated less, so its ends move no further.
    """
    height, width = ink_BCHW.shape[2:]
    degrees = (
        random.uniform(-1, 1)
        * settings.rotation_degrees
        * settings.strength
        * min(1.0, 4 * height / width)
    )
    scale_xy = 1 + random.uniform(-1, 1 / 3, 2) * min(0.9, settings.scale * settings.strength)
    if degrees == 0 and (scale_xy == 1).all():
        return ink_BCHW
    centre = torch.tensor([[(width - 1) / 2, (height - 1) / 2]])
    matrix = get_rotation_matrix2d(
        centre,
        torch.tensor([degrees], dtype=torch.float32),
        torch.tensor(scale_xy[None], dtype=torch.float32),
    )
    return warp_affine(ink_BCHW, matrix.to(ink_BCHW.device), (height, width))


def _bent(ink_BCHW: Tensor, settings: KorniaSettings, random: np.random.Generator) -> Tensor:
    """Deform elastically (Simard et al. 2003).

    Uniform noise of deviation 1/√3, smoothed with σ, has deviation 1 / (√3 · 2σ√π).
    """
    height, width = ink_BCHW.shape[2:]
    shift_px = random.random() * settings.elastic_px * settings.strength
    if shift_px == 0:
        return ink_BCHW
    noise = random.random((1, 2, height, width), dtype=np.float32) * 2 - 1
    factor = shift_px * math.sqrt(3) * 2 * _ELASTIC_SIGMA_PX * math.sqrt(math.pi)
    alpha = (factor * 2 / width, factor * 2 / height)  # kornia's coordinates run from -1 to 1
    sigma, side = (_ELASTIC_SIGMA_PX, _ELASTIC_SIGMA_PX), _kernel_side(_ELASTIC_SIGMA_PX)
    return elastic_transform2d(
        ink_BCHW, torch.from_numpy(noise).to(ink_BCHW.device), (side, side), sigma, alpha
    )


def _blurred(ink_BCHW: Tensor, settings: KorniaSettings, random: np.random.Generator) -> Tensor:
    """Blur some images with a Gaussian."""
    chosen, sigma = (
        random.random() < _BLURRED_SHARE,
        random.uniform(0.3, 1) * settings.blur_px * settings.strength,
    )
    if not chosen or sigma == 0:
        return ink_BCHW
    return gaussian_blur2d(ink_BCHW, _kernel_side(sigma), (sigma, sigma), border_type="constant")


def _kernel_side(sigma: float) -> int:
    """Return the odd side, in pixels, of a Gaussian cut at three σ."""
    return 2 * math.ceil(3 * sigma) + 1


def _lit(values_BCHW: Tensor, settings: KorniaSettings, random: np.random.Generator) -> Tensor:
    """Change contrast about the mean grey, then brightness."""
    contrast, brightness = random.uniform(-1, 1, 2) * (
        min(0.9, settings.contrast * settings.strength),
        settings.brightness * settings.strength,
    )
    return adjust_brightness(
        adjust_contrast_with_mean_subtraction(values_BCHW, float(1 + contrast)), float(brightness)
    )


def _noisy(values_BCHW: Tensor, settings: KorniaSettings, random: np.random.Generator) -> Tensor:
    """Add noise, the same in all channels, like a scanner's.

    In plain torch, because kornia's noise uses the global generator.
    """
    deviation = random.random() * settings.noise * settings.strength
    if deviation == 0:
        return values_BCHW
    noise = random.standard_normal(values_BCHW.shape[2:], dtype=np.float32) * np.float32(deviation)
    return values_BCHW + torch.from_numpy(noise).to(values_BCHW.device)
