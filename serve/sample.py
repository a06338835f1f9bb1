"""A page to try the live model with, from the lines in its bundle."""

import numpy as np

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.images import Pixels, encode_image, open_image
from ocr.replay import VALIDATION
from serve.errors import Refused
from serve.models import Models

_LINES, _MARGIN_PX, _SPACE_PX = 6, 60, 30
_MOST = 100  # looked at
_WHITE = 240
_LONG = 12  # characters of a line that is worth looking at


def sample_page(models: Models, model: str) -> bytes:
    """Return a PNG of lines below each other; Refused 404 where the bundle has no lines."""
    try:
        folder = models.path(model.partition(",")[0])
        if not (folder / VALIDATION).is_file():
            raise UserError(f"{model}: the bundle has no lines to show")
        data = Dataset.open(str(folder), "validation")
    except UserError as problem:
        raise Refused(404, "no_sample", str(problem)) from None
    long = [index for index, text in enumerate(data.texts) if len(text) >= _LONG]
    images = [open_image(data.image_bytes(index)) for index in (long or range(len(data)))[:_MOST]]
    lines = sorted(images, key=_paper, reverse=True)[:_LINES]
    width = max(line.shape[1] for line in lines) + 2 * _MARGIN_PX
    height = sum(line.shape[0] + _SPACE_PX for line in lines) + 2 * _MARGIN_PX
    page, top = np.full((height, width), 255, np.uint8), _MARGIN_PX
    for line in lines:
        page[top : top + line.shape[0], _MARGIN_PX : _MARGIN_PX + line.shape[1]] = line
        top += line.shape[0] + _SPACE_PX
    return encode_image(page)


def _paper(line: Pixels) -> float:
    """Return the share of a line that is white paper; grey and noisy lines have little."""
    return float((line > _WHITE).mean())
