"""Compressed content of strangers, unpacked up to a bound: a few kB can hold gigabytes."""

import gzip
import io
import lzma
import zipfile
import zlib

# what Python's own readers raise on damaged content, beside what they document
DAMAGED = (
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)


def gunzipped(content: bytes, most: int) -> bytes:
    """Return the content of a gzip file; ValueError where it is larger than `most` bytes."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        return _bounded(file, most)


def unxzipped(content: bytes, most: int) -> bytes:
    """Return the content of an xz file; ValueError where it is larger than `most` bytes."""
    with lzma.LZMAFile(io.BytesIO(content)) as file:
        return _bounded(file, most)


def _bounded(file: gzip.GzipFile | lzma.LZMAFile, most: int) -> bytes:
    unpacked = file.read(most + 1)
    if len(unpacked) > most:
        raise ValueError(f"more than {most:,} bytes when it is unpacked")
    return unpacked
