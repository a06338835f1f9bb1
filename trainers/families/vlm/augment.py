"""Augmentation with kornia on the batch's device: one warp, one elastic deformation, blur, light and noise per image.

Every parameter and every field of noise is drawn on the CPU from the sample's own key, and torch's generators are never asked, so an
image does not depend on the batch it is in, on the order of a batch or on the device beyond rounding.
Legend: B is 1, C is 3 (RGB), H and W in pixels. "Ink" is the image minus its paper, in 0–1: outside of it are zeros, which is paper.
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
    """A uint8 RGB image as float32 in 0–255 on its own device, disturbed by the draws of `key` (seed, epoch, sample id); its size stays."""
    if settings.strength == 0:
        return image_CHW.float()
    draw = generator("kornia", *key)
    values = image_CHW[None].float() / 255
    paper = _paper(values)
    with torch.autocast(
        image_CHW.device.type, enabled=False
    ):  # in bfloat16 the elastic field would be another one
        ink = _warped(values - paper, settings, draw)
        ink = _blurred(_bent(ink, settings, draw), settings, draw)
        values = _noisy(_lit(ink + paper, settings, draw), settings, draw)
    return values[0].clamp(0, 1) * 255


def _paper(values_BCHW: Tensor) -> Tensor:
    """The median of the outermost rows and columns, for each channel, [B, C, 1, 1].

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


def _warped(ink_BCHW: Tensor, settings: KorniaSettings, draw: np.random.Generator) -> Tensor:
    """Rotation and scale in one warp about the centre; in a long line the ends rise or fall by no more than in one four times its height."""
    height, width = ink_BCHW.shape[2:]
    degrees = (
        draw.uniform(-1, 1)
        * settings.rotation_degrees
        * settings.strength
        * min(1.0, 4 * height / width)
    )
    scale_xy = 1 + draw.uniform(-1, 1 / 3, 2) * min(0.9, settings.scale * settings.strength)
    if degrees == 0 and (scale_xy == 1).all():
        return ink_BCHW
    centre = torch.tensor([[(width - 1) / 2, (height - 1) / 2]])
    matrix = get_rotation_matrix2d(
        centre,
        torch.tensor([degrees], dtype=torch.float32),
        torch.tensor(scale_xy[None], dtype=torch.float32),
    )
    return warp_affine(ink_BCHW, matrix.to(ink_BCHW.device), (height, width))


def _bent(ink_BCHW: Tensor, settings: KorniaSettings, draw: np.random.Generator) -> Tensor:
    """Elastic deformation (Simard et al. 2003); uniform noise of deviation 1/√3, smoothed with σ, has 1 / (√3 · 2σ√π)."""
    height, width = ink_BCHW.shape[2:]
    shift_px = draw.random() * settings.elastic_px * settings.strength
    if shift_px == 0:
        return ink_BCHW
    noise = draw.random((1, 2, height, width), dtype=np.float32) * 2 - 1
    factor = shift_px * math.sqrt(3) * 2 * _ELASTIC_SIGMA_PX * math.sqrt(math.pi)
    alpha = (factor * 2 / width, factor * 2 / height)  # kornia's coordinates run from -1 to 1
    sigma, side = (_ELASTIC_SIGMA_PX, _ELASTIC_SIGMA_PX), _kernel_side(_ELASTIC_SIGMA_PX)
    return elastic_transform2d(
        ink_BCHW, torch.from_numpy(noise).to(ink_BCHW.device), (side, side), sigma, alpha
    )


def _blurred(ink_BCHW: Tensor, settings: KorniaSettings, draw: np.random.Generator) -> Tensor:
    """Gaussian blur of some images."""
    chosen, sigma = (
        draw.random() < _BLURRED_SHARE,
        draw.uniform(0.3, 1) * settings.blur_px * settings.strength,
    )
    if not chosen or sigma == 0:
        return ink_BCHW
    return gaussian_blur2d(ink_BCHW, _kernel_side(sigma), (sigma, sigma), border_type="constant")


def _kernel_side(sigma: float) -> int:
    """The odd side, in pixels, of a Gaussian cut at three σ."""
    return 2 * math.ceil(3 * sigma) + 1


def _lit(values_BCHW: Tensor, settings: KorniaSettings, draw: np.random.Generator) -> Tensor:
    """More or less contrast about the mean grey, then lighter or darker."""
    contrast, brightness = draw.uniform(-1, 1, 2) * (
        min(0.9, settings.contrast * settings.strength),
        settings.brightness * settings.strength,
    )
    return adjust_brightness(
        adjust_contrast_with_mean_subtraction(values_BCHW, float(1 + contrast)), float(brightness)
    )


def _noisy(values_BCHW: Tensor, settings: KorniaSettings, draw: np.random.Generator) -> Tensor:
    """Additive noise, the same in all channels, as a scanner's; plain torch, because kornia's noise draws from the global generator."""
    deviation = draw.random() * settings.noise * settings.strength
    if deviation == 0:
        return values_BCHW
    noise = draw.standard_normal(values_BCHW.shape[2:], dtype=np.float32) * np.float32(deviation)
    return values_BCHW + torch.from_numpy(noise).to(values_BCHW.device)
