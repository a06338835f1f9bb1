"""How large an image may be; apart from the code that opens images, so that settings can name it without loading that."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is refused before a pixel is decoded: Pillow's own limit lets 81 megapixels of a 78 kB file pass."""

    max_pixels: int = 20_000_000
    max_side_px: int = 10_000
    min_side_px: int = 4
    max_aspect: float = 200.0
