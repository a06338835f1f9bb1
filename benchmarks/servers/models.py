"""The recognisers that every server of the benchmark serves, by name.

A bundle, or one that takes a given time as a GPU would (the core is free, one batch at a time).
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocr.recognizers.factory import load
from ocr.sample import Reading


class Timed:
    """`alone_s` for one image, `eight_s` for eight, linear between and beyond.

    The text is the image's width.
    """

    image_mode = "L"
    reads_pages = False

    def __init__(self, alone_s: float, eight_s: float) -> None:
        self._alone_s, self._more_s, self._device = (
            alone_s,
            (eight_s - alone_s) / 7,
            threading.Lock(),
        )

    def read(self, images: Sequence[Any]) -> list[Reading]:
        with self._device:
            time.sleep(self._alone_s + self._more_s * (len(images) - 1))
        return [Reading(str(image.shape[1]), 1.0) for image in images]


def model(name: str) -> Any:
    """`odia`, any bundle, or `timed:ALONE_S:EIGHT_S`."""
    if name.startswith("timed:"):
        return Timed(*map(float, name.split(":")[1:]))
    return load(Path(name))
