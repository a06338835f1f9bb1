"""PaddleOCR label files: `path<TAB>text`, or `path<TAB>[boxes with texts]` whose boxes are cut out.

The first form is for recognition, the second for detection.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, Polygon, cut, encode_image, open_image
from ocr.limits import ImageLimits
from ocr.sample import Sample, Skip
from ocr.sources.files import FileRefused, folder, read_inside
from ocr.sources.settings import PaddleSettings
from ocr.sources.unit import Unit, in_rows
from ocr.text import normalise

_LONGEST_LINE_BYTES = 10_000_000
_PAGES_PER_UNIT = 20
_UNREADABLE = ("###", "*")


def plan(settings: PaddleSettings) -> list[Unit]:
    """Plan the lines of the label file.

    UserError when it, the images folder or the dictionary cannot be read.
    """
    labels = Path(settings.path)
    _root(settings)
    dictionary = _dictionary(settings)
    for oddity in dictionary.oddities if dictionary else ():
        print(oddity, flush=True)
    if dictionary and settings.labels == "recognition":
        _report_missing(dictionary, settings)
    count = sum(1 for _ in _lines(labels))
    return (
        in_rows("", count, rows=_PAGES_PER_UNIT)
        if settings.labels == "detection"
        else in_rows("", count)
    )


def _report_missing(dictionary: Dictionary, settings: PaddleSettings) -> None:
    labels = (
        line.decode("utf-8", "replace").partition(settings.delimiter)[2]
        for line in _lines(Path(settings.path))
    )
    lacking = Counter(
        name
        for text in labels
        if (missing := dictionary.missing(normalise(text)))
        for name in missing.split(", ")
    )
    if lacking:
        listed = ", ".join(f"{name} ({count:,} labels)" for name, count in lacking.most_common(20))
        print(
            f"{settings.character_dict_path} lacks: {listed}{' …' if len(lacking) > 20 else ''}",
            flush=True,
        )


def read(settings: PaddleSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every line that is not blank, or for every box of it."""
    labels = Path(settings.path)
    for number, line in enumerate(
        islice(_lines(labels), unit.start, unit.stop), start=unit.start + 1
    ):
        line = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
        if line.strip():
            yield from _read_line(line, f"{labels}:{number}", settings)


def files(settings: PaddleSettings) -> Iterator[Path]:
    """Yield the images that the label file names."""
    root = _root(settings)
    for line in _lines(Path(settings.path)):
        with contextlib.suppress(ValueError):  # not UTF-8, or a NUL: a Skip when it is read
            yield root / line.decode("utf-8").partition(settings.delimiter)[0].strip().replace(
                "\0", ""
            )


def _lines(labels: Path) -> Iterator[bytes]:
    """Yield lines as they are; of an extremely long line only the beginning is held.

    UserError when the file cannot be read.
    """
    try:
        with open(labels, "rb") as file:
            while line := file.readline(_LONGEST_LINE_BYTES):
                rest = line
                while not rest.endswith(b"\n") and (rest := file.readline(_LONGEST_LINE_BYTES)):
                    pass
                yield line
    except OSError as problem:
        raise UserError(
            f"{labels}: {problem.strerror}; `path` names a PaddleOCR label file, one "
            "`path<TAB>text` a line"
        ) from None


def _read_line(line: bytes, where: str, settings: PaddleSettings) -> Iterator[Sample | Skip]:
    if len(line) >= _LONGEST_LINE_BYTES:
        yield Skip(where, "malformed label line", f"longer than {_LONGEST_LINE_BYTES:,} bytes")
        return
    try:
        path, delimiter, text = line.decode("utf-8").partition(settings.delimiter)
    except UnicodeDecodeError as problem:
        yield Skip(where, "label not UTF-8", str(problem))
        return
    if not delimiter:
        yield Skip(
            where,
            "malformed label line",
            f"no {settings.delimiter!r} between path and text in {path[:80]!r}",
        )
    elif settings.labels == "detection":
        yield from _boxes(path.strip(), text, where, settings)
    else:
        yield _whole_image(path.strip(), text, where, settings)


def _whole_image(path: str, text: str, where: str, settings: PaddleSettings) -> Sample | Skip:
    problem = _unspellable(text, where, settings)
    if problem:
        return problem
    try:
        data = read_inside(_root(settings), path)
    except FileRefused as refused:
        return Skip(where, refused.reason, refused.detail)
    return Sample(
        f"{Path(settings.path).name}#{path}",
        data,
        text,
        settings.level,
        (("file", path),),
        f"paddle:{settings.path}",
    )


def _boxes(path: str, text: str, where: str, settings: PaddleSettings) -> Iterator[Sample | Skip]:
    try:
        boxes = [
            (str(box["transcription"]), np.array(box["points"], dtype=np.float64).reshape(-1, 2))
            for box in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        yield Skip(
            where,
            "malformed label line",
            f'expected [{{"transcription": …, "points": [[x, y], …]}}, …]: {problem!r}',
        )
        return
    try:
        page = open_image(
            read_inside(_root(settings), path),
            "as it is",
            ImageLimits(settings.max_page_pixels, max_side_px=65_535),
            path,
        )
    except (FileRefused, ImageRefused) as refused:
        yield from (
            Skip(f"{where}[{index}]", refused.reason, refused.detail) for index in range(len(boxes))
        )
        return
    for index, (transcription, polygon) in enumerate(boxes):
        yield _box(page, polygon, transcription, path, f"{where}[{index}]", index, settings)


def _box(
    page: Pixels,
    polygon: Polygon,
    text: str,
    path: str,
    where: str,
    index: int,
    settings: PaddleSettings,
) -> Sample | Skip:
    if text.strip() in _UNREADABLE:
        return Skip(where, "marked unreadable", text.strip())
    problem = _unspellable(text, where, settings)
    if problem:
        return problem
    try:
        pixels = cut(page, polygon, _direction(polygon, settings.deskew_degrees))
    except ImageRefused as refused:
        return Skip(where, refused.reason, refused.detail)
    return Sample(
        f"{Path(settings.path).name}#{path}#{index}",
        encode_image(pixels),
        text,
        settings.level,
        (("page", Path(path).stem),),
        f"paddle:{settings.path}",
    )


def _direction(polygon: Polygon, least_degrees: float) -> float:
    """Return the direction of a box's first edge, which lies along the top of the writing."""
    if len(polygon) < 2:
        return 0.0
    x, y = polygon[1] - polygon[0]
    degrees = float(np.rad2deg(np.arctan2(y, x)))
    return degrees if abs(degrees) > least_degrees else 0.0


def _unspellable(text: str, where: str, settings: PaddleSettings) -> Skip | None:
    """Return why the dictionary or max_text_length refuses a label; None when they accept it."""
    dictionary = _dictionary(settings)
    text = normalise(text)
    if dictionary is not None and (missing := dictionary.missing(text)):
        return Skip(where, "characters outside the dictionary", f"{text[:40]!r}: {missing}")
    length = len(text) if dictionary is None else len(dictionary.spell(text))
    if settings.max_text_length is not None and length > settings.max_text_length:
        return Skip(
            where,
            "text too long",
            f"{text[:40]!r}: {length}, max_text_length is {settings.max_text_length}",
        )
    return None


def _root(settings: PaddleSettings) -> Path:
    if settings.images is None:
        return Path(settings.path).parent
    return folder(
        settings.images, "images", f"the one that the paths in {settings.path} start from"
    )


def _dictionary(settings: PaddleSettings) -> Dictionary | None:
    return (
        _opened(settings.character_dict_path, settings.use_space_char)
        if settings.character_dict_path
        else None
    )


@lru_cache(maxsize=4)
def _opened(path: str, use_space_char: bool) -> Dictionary:
    return Dictionary.open(Path(path), use_space_char)
