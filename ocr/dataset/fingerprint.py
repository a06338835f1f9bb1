"""The fingerprint of a data set: equal ones mean the same samples; and the look of an image."""

import hashlib
import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocr.pixels import Pixels

_HASH_SIDE = (9, 16)  # dHash: 8 differences in each of 16 rows


class Fingerprint:
    """SHA-256 over (id, text, SHA-256 of the image) of every sample, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, id: str, text: str, image: bytes) -> None:
        """Add one more sample."""
        self._digest.update(
            json.dumps([id, text, hashlib.sha256(image).hexdigest()]).encode() + b"\n"
        )

    def hexdigest(self) -> str:
        """Return the fingerprint of all samples so far."""
        return self._digest.hexdigest()


def look_of(pixels: Pixels) -> bytes:
    """Return a 128-bit difference hash (dHash): coarse pixels against the one left."""
    grey: NDArray[np.uint8] = np.asarray(
        Image.fromarray(pixels).convert("L").resize(_HASH_SIDE, Image.Resampling.BOX)
    )
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
