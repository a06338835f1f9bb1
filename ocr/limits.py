"""Limits and formats of images, apart from the code that opens images: settings use them too."""

from dataclasses import dataclass

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".avif"),
)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits checked before a pixel is decoded.

    Pillow's own limit accepts 81 megapixels from a file of 78 kB.
    """

    max_pixels: int = 20_000_000
    max_side_px: int = 10_000
    min_side_px: int = 4
    max_aspect: float = 200.0
    max_scans: int = 100  # of a JPEG: each is decoded over the whole image
