"""Pages of PAGE-XML and ALTO as plain values, and the samples that their pieces become.

The two readers fill these values in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from ocr.errors import UserError
from ocr.images import (
    ImageRefused,
    Pixels,
    Polygon,
    cut,
    encode_image,
    open_image,
)
from ocr.limits import ImageLimits
from ocr.sample import Level, Sample, Skip
from ocr.sources.files import FileRefused, folder, names_below, read_inside
from ocr.sources.page_image import find_image
from ocr.sources.settings import LayoutSettings
from ocr.sources.unit import Unit

NO_TEXT = "region without text"
_MAX_XML_BYTES = 64_000_000
_SAME_ASPECT = 0.02
_KEPT_FORMATS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP"}


class NotThisFormat(ValueError):
    """An XML file that is no page description of the expected format."""


@dataclass(frozen=True)
class Piece:
    """A word, line or region: its polygon and text, and its smaller pieces in reading order."""

    id: str
    polygon: Polygon | None
    text: str | None = None
    confidence: float | None = None
    degrees: float = 0.0  # direction of the writing, clockwise from left to right
    pieces: tuple["Piece", ...] = ()


@dataclass(frozen=True)
class Page:
    """One page: its image as the XML names it, the size of its coordinates, its regions."""

    image: str
    width: float
    height: float
    regions: tuple[Piece, ...]


Parser = Callable[[Element], Page]


def plan_layout(settings: LayoutSettings) -> list[Unit]:
    """Plan one unit for each XML file, in the order of their paths; UserError without any."""
    path = Path(settings.path)
    if path.is_file():
        return [Unit(path.name)]
    names = names_below(
        folder(
            settings.path, "path", f"a folder of {settings.format.upper()} files with their images"
        ),
        [".xml"],
    )
    if not names:
        raise UserError(f"{path}: no XML file in it or below it")
    return [Unit(name) for name in names]


def read_layout(settings: LayoutSettings, unit: Unit, parse: Parser) -> Iterator[Sample | Skip]:
    """Yield the pieces of one page that `levels` asks for, or why there is none."""
    root = Path(settings.path).parent if Path(settings.path).is_file() else Path(settings.path)
    where = str(root / unit.name)
    try:
        page = parse(_parsed(read_inside(root, unit.name, _MAX_XML_BYTES)))
    except FileRefused as refused:
        yield Skip(
            where,
            "missing XML" if refused.reason == "missing image" else refused.reason,
            refused.detail,
        )
    except NotThisFormat as problem:
        yield Skip(where, f"not {settings.format.upper()}", str(problem))
    except DefusedXmlException as problem:
        yield Skip(where, "XML with entities or a DTD", f"refused unread: {type(problem).__name__}")
    # LookupError: an unknown encoding
    except (
        ParseError,
        ValueError,
        LookupError,
        RecursionError,
    ) as problem:
        yield Skip(where, "not valid XML", str(problem))
    else:
        yield from _samples(settings, root, unit, page)


def points_of(text: str | None) -> Polygon | None:
    """Return `x,y x,y …` or `x y x y …` as [N, 2]; None without at least two points."""
    try:
        numbers = [float(number) for number in (text or "").replace(",", " ").split()]
    except ValueError:
        return None
    points = np.array(numbers, dtype=np.float64)
    return (
        points.reshape(-1, 2)
        if len(points) >= 4 and len(points) % 2 == 0 and np.isfinite(points).all()
        else None
    )


def direction_of(baseline: Polygon | None, otherwise: float = 0.0) -> float:
    """Return the degrees, clockwise, from a baseline's first point to its last."""
    if baseline is None or np.allclose(baseline[0], baseline[-1]):
        return otherwise
    x, y = baseline[-1] - baseline[0]
    return float(np.rad2deg(np.arctan2(y, x)))


def name_of(element: Element) -> str:
    """Return the tag without its namespace, which differs by version."""
    return str(element.tag).rpartition("}")[2]


def _parsed(data: bytes) -> Element:
    root: Element = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    return root


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A piece to cut out, at its level, with the text that it shows."""

    level: Level
    where: str
    piece: Piece


def _samples(
    settings: LayoutSettings, root: Path, unit: Unit, page: Page
) -> Iterator[Sample | Skip]:
    wanted = list(_wanted(settings, page))
    images = Path(settings.images) if settings.images else root
    try:
        name = find_image(
            images,
            "" if settings.images else str(PurePosixPath(unit.name).parent),
            page.image,
            PurePosixPath(unit.name).stem,
        )
        data = read_inside(images, name)
        pixels = open_image(
            data, "as it is", ImageLimits(settings.max_page_pixels, max_side_px=65_535), name
        )
        scale = _scale(page, pixels)
    except (FileRefused, ImageRefused) as refused:
        yield from (
            Skip(f"{root / unit.name}#{one.where}", refused.reason, refused.detail)
            for one in wanted
        )
        return
    for one in wanted:
        yield _sample(settings, f"{unit.name}#{one.where}", one, pixels, data, scale)


def _wanted(settings: LayoutSettings, page: Page) -> Iterator[_Wanted]:
    if "page" in settings.levels:
        yield _Wanted(
            "page", "page", Piece("page", None, _joined(page.regions), _least_sure(page.regions))
        )
    for region in page.regions:
        if "paragraph" in settings.levels:
            yield _Wanted(
                "paragraph",
                region.id,
                replace(region, text=region.text if not region.pieces else _joined([region])),
            )
        for line in region.pieces:
            if "line" in settings.levels:
                yield _Wanted("line", line.id, line)
            if "word" in settings.levels:
                yield from (_Wanted("word", word.id, word) for word in line.pieces)


def _joined(regions: tuple[Piece, ...] | list[Piece]) -> str | None:
    """Join the regions' lines; None where a line has no text.

    The image would show more than the text. A region without lines and text, such as a drawing's,
    adds nothing.
    """
    texts = [
        line.text
        for region in regions
        for line in (region.pieces or ((region,) if region.text else ()))
    ]
    return (
        None
        if any(not text or not text.strip() for text in texts)
        else "\n".join(text for text in texts if text)
    )


def _least_sure(pieces: tuple[Piece, ...]) -> float | None:
    return min((piece.confidence for piece in pieces if piece.confidence is not None), default=None)


def _sample(
    settings: LayoutSettings,
    id: str,
    wanted: _Wanted,
    page: Pixels,
    file: bytes,
    scale: tuple[float, float],
) -> Sample | Skip:
    piece = wanted.piece
    if piece.text is None or not piece.text.strip():
        return _untranscribed(id, wanted)
    if piece.confidence is not None and piece.confidence < settings.min_confidence:
        return Skip(
            id,
            "text not sure enough",
            f"confidence {piece.confidence:g}, min_confidence is {settings.min_confidence:g}",
        )
    if wanted.level == "page":
        image = (
            file if any(file.startswith(magic) for magic in _KEPT_FORMATS) else encode_image(page)
        )
    elif piece.polygon is None:
        return Skip(id, "no place on the page", "neither a polygon nor a box")
    else:
        degrees = piece.degrees if abs(piece.degrees) > settings.deskew_degrees else 0.0
        try:
            image = encode_image(cut(page, piece.polygon * scale, degrees))
        except ImageRefused as refused:
            return Skip(id, refused.reason, refused.detail)
    return Sample(
        id,
        image,
        piece.text,
        wanted.level,
        (("page", id.rpartition("#")[0]),),
        f"{settings.format}:{settings.path}",
    )


def _untranscribed(id: str, wanted: _Wanted) -> Skip:
    if wanted.level in ("word", "line"):
        return Skip(id, "empty text")
    if wanted.piece.text is None and (wanted.level == "page" or wanted.piece.pieces):
        return Skip(
            id, "a line in it has no text", "transcribe it, or leave this level out of `levels`"
        )
    return Skip(id, NO_TEXT)


def _scale(page: Page, pixels: Pixels) -> tuple[float, float]:
    """Return pixels per unit of the XML's coordinates, across and down.

    FileRefused when the shapes differ, so that it is another image.
    """
    height, width = pixels.shape[:2]
    if page.width <= 0 or page.height <= 0:
        return 1.0, 1.0
    across, down = width / page.width, height / page.height
    if abs(across / down - 1) > _SAME_ASPECT:
        raise FileRefused(
            "image of another shape",
            f"{width}×{height} pixels; the XML describes {page.width:g}×{page.height:g}",
        )
    return across, down
