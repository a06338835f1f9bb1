"""The image file that a page description belongs to, opened as its coordinates were measured."""

from pathlib import Path, PurePosixPath

from ocr.images import Pixels, image_size, open_image, orientation_of
from ocr.limits import FORMATS, SUFFIXES, ImageLimits
from ocr.sources.files import FileRefused
from ocr.sources.named_files import find_beside, find_named

EXIF = "EXIF orientation of a page"
_SAME_ASPECT = 0.02
_OTHER_FORMATS = {
    ".heic": "HEIC",
    ".djvu": "DjVu",
    ".pdf": "PDF",
}


def find_image(root: Path, beside: str, named: str, stem: str) -> str:
    """Return the page image relative to `root`.

    It is found as the XML names it, from the XML's folder upwards, or by its stem or the XML's own.
    FileRefused("missing image") when there is none.
    """
    found = find_named(root, named, beside) if named else None
    if found and PurePosixPath(found).suffix.lower() not in _OTHER_FORMATS:
        return found
    parent = str(PurePosixPath(found).parent) if found else beside
    stems = [PurePosixPath(found or named.replace("\\", "/")).stem, stem, stem.split(".")[0]]
    for name in dict.fromkeys(filter(None, stems)):
        for folder in dict.fromkeys((parent, beside)):
            if other := find_beside(root, str(PurePosixPath(folder) / name)):
                return other
    kind = _OTHER_FORMATS.get(PurePosixPath(named).suffix.lower())
    if found:
        raise FileRefused(
            "image of a format that is not read",
            f"{named}: {kind}; save it as one of {', '.join(FORMATS)} beside it",
        )
    raise FileRefused(
        "missing image",
        f"{named or 'no name given'}: neither beside the XML nor up to {root}; endings: "
        f"{', '.join(SUFFIXES)}",
    )


def open_page(
    data: bytes, width: float, height: float, limits: ImageLimits, where: str
) -> tuple[Pixels, str]:
    """Return a page's pixels as its coordinates were measured, and a remark where EXIF turns it.

    `width` and `height` are the page's own, in any unit. Most tools measure the image as it is
    stored, without the EXIF; so does this where both ways fit.
    """
    turned = orientation_of(data, limits)
    if turned == 1:
        return open_image(data, "as it is", limits, where), ""
    upright = width > 0 < height and not _fits_stored(data, width, height, limits, where)
    way = "upright, as the page's size says" if upright else "as the image is stored"
    remark = f"{where}: orientation {turned}; the coordinates are taken {way}"
    return open_image(data, "as it is", limits, where, upright=upright), remark


def scale_of(width: float, height: float, pixels: Pixels) -> tuple[float, float]:
    """Return pixels per unit of the page's coordinates, across and down.

    FileRefused when the shapes differ, so that it is another image.
    """
    image_height, image_width = pixels.shape[:2]
    if width <= 0 or height <= 0:
        return 1.0, 1.0
    across, down = image_width / width, image_height / height
    if abs(across / down - 1) > _SAME_ASPECT:
        raise FileRefused(
            "image of another shape",
            f"{image_width}×{image_height} pixels; the XML describes {width:g}×{height:g}",
        )
    return across, down


def _fits_stored(data: bytes, width: float, height: float, limits: ImageLimits, where: str) -> bool:
    """Tell whether the page's shape is at least as much the stored image's as the upright one's."""
    upright_width, upright_height = image_size(data, limits, where)
    is_quarter_turn = orientation_of(data, limits) >= 5
    stored = (upright_height, upright_width) if is_quarter_turn else (upright_width, upright_height)
    stored_miss, upright_miss = (
        abs(across / width / (down / height) - 1)
        for across, down in (stored, (upright_width, upright_height))
    )
    return stored_miss <= upright_miss
