"""Images → the input of a CTC network.

Legend: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocr.images import Pixels, scale_to_height, to_ink, trim_rows
from ocr.line_crop import crop_to_line
from ocr.recognizers.ctc.settings import NetworkSettings

MARGIN_PX = 4
_LEAST_INK = 0.25  # of 1: 8 grey levels


def input_width(width_px: int, settings: NetworkSettings) -> int:
    """Return the columns of the network's input for a line of this width (as `as_line` gives it).

    That is the fixed width, else the width with margins, rounded up to whole outputs.
    """
    if settings.fixed_width_px is not None:
        return settings.fixed_width_px
    return (
        -(-(width_px + 2 * MARGIN_PX) // settings.columns_per_output) * settings.columns_per_output
    )


def as_line(pixels: Pixels, settings: NetworkSettings) -> Pixels:
    """Return an image as the network's input line: its ink fills the height.

    A line wider than a fixed width, margins included, is squeezed.
    """
    max_width_px = (
        None if settings.fixed_width_px is None else settings.fixed_width_px - 2 * MARGIN_PX
    )
    rows = crop_to_line(pixels) if settings.crop == "line" else trim_rows(pixels)
    return scale_to_height(rows, settings.height_px, max_width_px, settings.stretch)


def has_ink(line: Pixels) -> bool:
    """Return whether any pixel differs from the background by more than noise of 8 grey levels."""
    return float(to_ink(line).max()) > _LEAST_INK


def collate(
    lines: Sequence[Pixels], settings: NetworkSettings
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return ink [B, C, H, W] and widths [B] of line images (uint8, as `as_line` gives them).

    Beyond an image's width there is background.
    """
    inks = [to_ink(line) for line in lines]
    widths = [input_width(ink.shape[2], settings) for ink in inks]
    channels, height = inks[0].shape[:2]
    batch: NDArray[np.float32] = np.zeros((len(inks), channels, height, max(widths)), np.float32)
    for row, ink in zip(batch, inks, strict=True):
        row[:, :, MARGIN_PX : MARGIN_PX + ink.shape[2]] = ink
    return batch, np.array(widths, np.int64)
