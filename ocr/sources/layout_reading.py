"""Files of PAGE-XML and ALTO → samples: the pieces of a page that `levels` asks for, or why not."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from ocr.errors import UserError
from ocr.images import ImageRefused, Pixels, cut, encode_image
from ocr.limits import SUFFIXES, ImageLimits
from ocr.sample import Level, Sample, Skip
from ocr.sources.files import UNREAD, FileRefused, folder, names_below, read_inside, unread
from ocr.sources.layout import NO_TEXT, NotThisFormat, Page, Parser, Piece, Unusable, name_of
from ocr.sources.named_files import is_file
from ocr.sources.page_image import EXIF, find_image, open_page, scale_of
from ocr.sources.settings import LayoutSettings
from ocr.sources.unit import Unit

NOTHING = "page without such pieces"
_MAX_XML_BYTES = 64_000_000
_KEPT_FORMATS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")


def plan_layout(settings: LayoutSettings) -> list[Unit]:
    """Plan one unit for each XML file, in the order of their paths; UserError without any."""
    path = Path(settings.path)
    if is_file(path):
        return [Unit(path.name)]
    names = names_below(
        folder(
            settings.path, "path", f"a folder of {settings.format.upper()} files with their images"
        ),
        [".xml"],
    )
    if not names:
        raise UserError(f"{path}: no XML file in it or below it")
    return [*(Unit(name) for name in names), Unit(UNREAD)]


def read_layout(settings: LayoutSettings, unit: Unit, parse: Parser) -> Iterator[Sample | Skip]:
    """Yield the pieces of the pages that `levels` asks for, or why there is none."""
    path = Path(settings.path)
    root = path.parent if is_file(path) else path
    if unit.name == UNREAD:
        yield from unread(root, _used(settings, root, parse), (".xml",))
        return
    for page in _parsed(settings, root, unit.name, parse):
        if isinstance(page, Skip):
            yield page
            continue
        items = list(_samples(settings, root, unit, page))
        yield from items
        if not items:
            where = f"{root / unit.name}{'/' if page.id else ''}{page.id}"
            yield Skip(where, NOTHING, f"no {', '.join(settings.levels)} in it")


def _parsed(
    settings: LayoutSettings, root: Path, name: str, parse: Parser
) -> Sequence[Page | Skip]:
    """Return the pages of a file, or why there is none: for each of its lines if it has some."""
    where = str(root / name)
    try:
        data = read_inside(root, name, _MAX_XML_BYTES)
        element = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except FileRefused as refused:
        reason = "missing XML" if refused.reason == "missing image" else refused.reason
        return [Skip(where, reason, refused.detail)]
    except DefusedXmlException as problem:
        detail = f"refused unread: {type(problem).__name__}"
        return [Skip(where, "XML with entities or a DTD", detail)]
    except (ParseError, ValueError, LookupError, RecursionError) as problem:
        # LookupError: an unknown encoding
        return [Skip(where, "not valid XML", str(problem))]
    try:
        return parse(element)
    except NotThisFormat as problem:
        return [Skip(where, f"not {settings.format.upper()}", str(problem))]
    except RecursionError as problem:
        return [Skip(where, "not valid XML", str(problem))]
    except Unusable as problem:
        lines = sum(name_of(each) == "TextLine" for each in element.iter())
        count = lines if "line" in settings.levels else 0
        places = [f"{where}#line{number}" for number in range(count)] or [where]
        return [Skip(place, problem.reason, problem.detail) for place in places]


def _used(settings: LayoutSettings, root: Path, parse: Parser) -> Iterator[str]:
    """Yield the images of all pages, relative to the folder of the XML files.

    An image named like an XML file belongs to it, also where the file cannot be read.
    """
    names = names_below(root, [".xml"])
    stems = {PurePosixPath(name).stem for name in names}
    yield from (name for name in names_below(root, SUFFIXES) if PurePosixPath(name).stem in stems)
    for name in names:
        for page in [] if settings.images else _parsed(settings, root, name, parse):
            if isinstance(page, Skip):
                continue
            with contextlib.suppress(FileRefused):
                yield _image_name(settings, root, name, page)


def _image_name(settings: LayoutSettings, images: Path, xml: str, page: Page) -> str:
    beside = "" if settings.images else str(PurePosixPath(xml).parent)
    return find_image(images, beside, page.image, PurePosixPath(xml).stem)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A piece to cut out, at its level, with the text that it shows."""

    level: Level
    where: str
    piece: Piece


@dataclass(frozen=True, slots=True)
class _Opened:
    """A page with its image; `file` is the image's own where it shows the page as it is read."""

    name: str
    pixels: Pixels
    scale: tuple[float, float]
    file: bytes | None
    remarks: tuple[tuple[str, str], ...]


def _samples(
    settings: LayoutSettings, root: Path, unit: Unit, page: Page
) -> Iterator[Sample | Skip]:
    wanted = list(_wanted(settings, page))
    images = Path(settings.images) if settings.images else root
    try:
        name = _image_name(settings, images, unit.name, page)
        data = read_inside(images, name)
        limits = ImageLimits(settings.max_page_pixels, max_side_px=65_535)
        pixels, remark = open_page(data, page.width, page.height, limits, name)
        opened = _Opened(
            f"{unit.name}/{page.id}" if page.id else unit.name,
            pixels,
            scale_of(page.width, page.height, pixels),
            data if not remark and data.startswith(_KEPT_FORMATS) else None,
            ((EXIF, remark),) if remark else (),
        )
    except (FileRefused, ImageRefused) as refused:
        yield from (
            Skip(f"{root / unit.name}#{one.where}", refused.reason, refused.detail)
            for one in wanted
        )
        return
    for number, one in enumerate(wanted):
        sample = _sample(settings, one, opened)
        if number == 0 and isinstance(sample, Sample):
            sample = replace(sample, findings=opened.remarks)
        yield sample


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


def _sample(settings: LayoutSettings, wanted: _Wanted, page: _Opened) -> Sample | Skip:
    id, piece = f"{page.name}#{wanted.where}", wanted.piece
    if piece.problem:
        return Skip(id, *piece.problem)
    if piece.text is None or not piece.text.strip():
        return _untranscribed(id, wanted)
    if piece.confidence is not None and piece.confidence < settings.min_confidence:
        return Skip(
            id,
            "text not sure enough",
            f"confidence {piece.confidence:g}, min_confidence is {settings.min_confidence:g}",
        )
    if wanted.level == "page":
        image = page.file or encode_image(page.pixels)
    elif piece.polygon is None:
        return Skip(id, "no place on the page", "neither a polygon nor a box")
    else:
        degrees = piece.degrees if abs(piece.degrees) > settings.deskew_degrees else 0.0
        try:
            image = encode_image(cut(page.pixels, piece.polygon * page.scale, degrees))
        except ImageRefused as refused:
            return Skip(id, refused.reason, refused.detail)
    return Sample(
        id,
        image,
        piece.text,
        wanted.level,
        (("page", page.name),),
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
