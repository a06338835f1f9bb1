"""PaddleOCR label files: `path<TAB>text`, or `path<TAB>[boxes with texts]` whose boxes are cut out.

The first form is for recognition, the second for detection.
"""

import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, AnyStr

from ocr.dictionary import Dictionary
from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, Polygon
from ocr.sample import Sample, Skip
from ocr.sources.boxes import (
    MALFORMED,
    UNREADABLE,
    Cutting,
    cut_box,
    open_page,
    polygon_of,
    text_of,
)
from ocr.sources.files import FileRefused, folder, read_inside
from ocr.sources.named_files import find_named, require_named
from ocr.sources.settings import PaddleSettings
from ocr.sources.unit import Unit, in_rows
from ocr.text import encoding_of, normalise

_LONGEST_LINE_BYTES = 10_000_000
_PAGES_PER_UNIT = 20
_PEEKED = 4_096
_BOXES = re.compile(r'\[\s*\{[^{}]*"(?:transcription|points)"\s*:')


def plan(settings: PaddleSettings) -> list[Unit]:
    """Plan the lines of the label file.

    UserError when it, the images folder or the dictionary cannot be read.
    """
    labels = Path(settings.path)
    _root(settings)
    _require_kind(settings)
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


def _require_kind(settings: PaddleSettings) -> None:
    """Raise UserError where labels of boxes would be read as texts of whole images."""
    if settings.labels == "detection":
        return
    for number, line in enumerate(_lines(Path(settings.path)), start=1):
        text = line.decode("utf-8", "replace").partition(settings.delimiter)[2].strip()
        if _BOXES.match(text):
            raise UserError(
                f"{settings.path}:{number}: the label is a list of boxes with texts; set "
                "labels: detection, or name the label file with one text an image"
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
        with contextlib.suppress(ValueError):  # not UTF-8: a Skip when it is read
            path = line.decode("utf-8").partition(settings.delimiter)[0].strip()
            for name in _listed(path) or [path]:
                yield root / (_found(root, name) or "")


def _found(root: Path, name: str) -> str | None:
    try:
        return find_named(root, name)
    except FileRefused:
        return None


def _lines(labels: Path) -> Iterator[bytes]:
    """Yield lines in UTF-8; of an extremely long line only the beginning is held.

    UserError when the file cannot be read.
    """
    try:
        with open(labels, "rb") as file:
            start = file.read(_PEEKED)
            file.seek(0)
            if (encoding := encoding_of(start)) != "utf-8-sig":
                with io.TextIOWrapper(file, encoding, "replace", newline="\n") as text:
                    yield from (line.encode() for line in _whole_lines(text, ""))
            else:
                yield from _whole_lines(file, b"")
    except OSError as problem:
        raise UserError(
            f"{labels}: {problem.strerror}; `path` names a PaddleOCR label file, one "
            "`path<TAB>text` a line"
        ) from None


def _whole_lines(file: IO[AnyStr], empty: AnyStr) -> Iterator[AnyStr]:
    feed = "\n" if isinstance(empty, str) else b"\n"
    while line := file.readline(_LONGEST_LINE_BYTES):
        rest = line
        while rest[-1:] != feed and (rest := file.readline(_LONGEST_LINE_BYTES)):
            pass
        yield line


def _read_line(line: bytes, where: str, settings: PaddleSettings) -> Iterator[Sample | Skip]:
    if len(line) >= _LONGEST_LINE_BYTES:
        yield Skip(where, "malformed label line", f"longer than {_LONGEST_LINE_BYTES:,} bytes")
        return
    try:
        path, delimiter, text = line.decode("utf-8").partition(settings.delimiter)
    except UnicodeDecodeError as problem:
        yield Skip(where, "label not UTF-8", str(problem))
        return
    path = path.strip()
    if not delimiter:
        yield Skip(
            where,
            "malformed label line",
            f"no {settings.delimiter!r} between path and text in {path[:80]!r}",
        )
    elif settings.labels == "detection":
        yield from _boxes(path, text, where, settings)
    else:
        for position, name in enumerate(_listed(path) or [path]):
            place = f"{where}[{position}]" if position else where
            yield _whole_image(name, text, place, settings)


def _listed(path: str) -> list[str]:
    """Return the paths of a label with several images, `["a.png", "b.png"]`; else none."""
    if not path.startswith("["):
        return []
    try:
        paths = json.loads(path)
    except (ValueError, RecursionError):
        return []
    return paths if isinstance(paths, list) and all(isinstance(one, str) for one in paths) else []


def _whole_image(path: str, text: str, where: str, settings: PaddleSettings) -> Sample | Skip:
    problem = _unspellable(text, where, settings)
    if problem:
        return problem
    try:
        data = read_inside(_root(settings), require_named(_root(settings), path))
    except FileRefused as refused:
        return Skip(where, refused.reason, refused.detail)
    path = path.replace("\\", "/")
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
        boxes = [(box["transcription"], box["points"], box) for box in json.loads(text)]
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        yield Skip(
            where,
            "malformed label line",
            f'expected [{{"transcription": …, "points": [[x, y], …]}}, …]: {problem!r}',
        )
        return
    polygons = [polygon_of(points) for _, points, _ in boxes]
    try:
        page = open_page(
            read_inside(_root(settings), require_named(_root(settings), path)),
            [polygon for polygon in polygons if polygon is not None],
            settings.max_page_pixels,
            path,
        )
    except (FileRefused, ImageRefused) as refused:
        yield from (
            Skip(f"{where}[{index}]", refused.reason, refused.detail) for index in range(len(boxes))
        )
        return
    for index, ((label, _, box), polygon) in enumerate(zip(boxes, polygons, strict=True)):
        item = _box(page, polygon, label, f"{path.replace(chr(92), '/')}#{index}", settings)
        if isinstance(item, Sample) and box.get("difficult") is True:
            item = Skip("", "marked unreadable", "difficult")
        yield replace(item, where=f"{where}[{index}]") if isinstance(item, Skip) else item


def _box(
    page: Pixels, polygon: Polygon | None, label: Any, id: str, settings: PaddleSettings
) -> Sample | Skip:
    text = text_of(label)
    if isinstance(text, Skip):
        return text
    if polygon is None:
        return Skip("", MALFORMED, "points: expected [[x, y], …]")
    if text.strip() not in UNREADABLE and (problem := _unspellable(text, "", settings)):
        return problem
    cutting = Cutting(
        settings.level,
        settings.deskew_degrees,
        settings.max_page_pixels,
        f"paddle:{settings.path}",
    )
    name = f"{Path(settings.path).name}#{id}"
    return cut_box(page, polygon, text, name, cutting, id.rpartition("#")[0])


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
