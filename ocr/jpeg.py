"""How many scans a JPEG has: each costs a decoder the whole image again, however small it is.

Markers are those of ITU-T T.81, Annex B.
"""

import re

from ocr.errors import ImageRefused
from ocr.limits import ImageLimits

_SOI, _SOS, _EOI = b"\xff\xd8", b"\xff\xda", 0xD9
# within a scan FF is followed by 00 (a byte of data), a restart marker, or FF (fill)
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def scans_at_most(data: bytes) -> int:
    """Return a bound on the number of scans: 0 where the file is no JPEG."""
    return data.count(_SOS) if data[:2] == _SOI else 0


def scans(data: bytes, most: int) -> int:
    """Return the number of scans up to the end of the image, `most` where there are more.

    What follows the image (a film, a second picture) and thumbnails in its header do not count.
    It is 0 where the file is no JPEG.
    """
    if data[:2] != _SOI:
        return 0
    count, position = 0, 2
    while count < most and (found := _MARKER.search(data, position)):
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            break
        count += marker == _SOS[1]
        position += max(2, int.from_bytes(data[position : position + 2]))
    return count


def require_few_scans(data: bytes, limits: ImageLimits, where: str) -> None:
    """Raise ImageRefused for a JPEG with more scans than `limits.max_scans`."""
    most = limits.max_scans
    if scans_at_most(data) > most and scans(data, most + 1) > most:
        message = f"a JPEG of more than {most} scans, the most that are decoded: save it again"
        raise ImageRefused(where, "too many scans", message)
