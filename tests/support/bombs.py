"""Files that are small to send and dear to decode, as a stranger would send them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG of one colour whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 200).save(buffer, "JPEG", progressive=True)
    jpeg = buffer.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + jpeg[-2:]


def nested_pdf(depth: int, times: int = 10) -> bytes:
    """A PDF of one page; each of `depth` forms draws the next one `times` times."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R"
        b"/Resources<</XObject<</X 5 0 R>>>>>>",
        b"<</Length 5>>stream\n/X Do\nendstream",
    ]
    for level in range(depth):
        is_last = level == depth - 1
        drawn = b"0 0 m 9 9 l S" if is_last else b"/X Do " * times
        inner = b"" if is_last else b"/Resources<</XObject<</X %d 0 R>>>>" % (6 + level)
        head = b"<</Type/XObject/Subtype/Form/BBox[0 0 200 200]%s/Length %d>>" % (inner, len(drawn))
        objects.append(head + b"stream\n" + drawn + b"\nendstream")
    pdf, places = bytearray(b"%PDF-1.4\n"), list[int]()
    for number, content in enumerate(objects, start=1):
        places.append(len(pdf))
        pdf += b"%d 0 obj" % number + content + b"endobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
    )
    return bytes(pdf) + end % (len(objects) + 1, table, len(objects) + 1, len(pdf))


def many_frames_gif(frames: int) -> bytes:
    """A GIF of so many frames of one pixel each."""
    frame = b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0"
    head = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + frame * frames + b";"


def many_pages_tiff(pages: int) -> bytes:
    """A TIFF whose chain of directories has so many entries, all with one strip."""
    entries = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (278, 8), (279, 64)]
    size = 2 + 12 * len(entries) + 4
    data = bytearray(b"II*\0" + struct.pack("<I", 72) + b"\xc8" * 64)
    for page in range(pages):
        data += struct.pack("<H", len(entries))
        for tag, value in entries:
            data += struct.pack("<HHII", tag, 4, 1, value)
        data += struct.pack("<I", 72 + size * (page + 1) if page < pages - 1 else 0)
    return bytes(data)


def texts_in_png(chunks: int, kind: bytes = b"zTXt") -> bytes:
    """A PNG of 8×8 pixels with so many chunks of text, or of a profile, of a megabyte each."""
    packed = zlib.compress(bytes(1_000_000), 9)
    text = {b"zTXt": b"k\0\0", b"iCCP": b"k\0\0", b"iTXt": b"k\0\1\0\0\0"}[kind] + packed
    png = io.BytesIO()
    Image.new("L", (8, 8), 200).save(png, "PNG")
    whole = png.getvalue()
    return whole[:33] + _chunk(kind, text) * chunks + whole[33:]


def pixel_bomb(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG of grey pixels of one value in a few kB."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    packer, row = zlib.compressobj(9), bytes(width * depth // 8 + 1)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", rows)
        + _chunk(b"IEND", b"")
    )


def wide_canvas_webp(side: int = 16_383) -> bytes:
    """A WebP whose header says so many pixels and whose one frame has few."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(buffer, "WEBP", lossless=True)
    frame = buffer.getvalue()[12:]
    size = (side - 1).to_bytes(3, "little")
    place = (
        struct.pack("<4sI", b"ANMF", 16 + len(frame)) + bytes(6) + b"\x07\0\0\x07\0\0" + bytes(4)
    )
    body = (
        struct.pack("<4sI", b"VP8X", 10)
        + b"\x02\0\0\0"
        + size
        + size
        + struct.pack("<4sI", b"ANIM", 6)
        + bytes(6)
        + place
        + frame
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Pixels that cannot be made smaller."""
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
