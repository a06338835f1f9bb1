"""Pages whose lines are known: composed of word images, or real ones with their PAGE or ALTO."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import defusedxml.ElementTree
import numpy as np
from PIL import Image

from ocr.images import Pixels, open_image
from ocr.limits import ImageLimits
from ocr.sources import alto, page_xml
from ocr.sources.layout import Piece
from ocr.sources.page_image import find_image

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"
SETS = {
    "alto_french_print": alto.parse,
    "page_german_latin_print": page_xml.parse,
    "alto_french_handwriting": alto.parse,
    "alto_medieval_manuscripts": alto.parse,
}
HEIGHT_PX, WIDTH_PX, MARGIN_PX, GAP_PX, PAPER = 1800, 1400, 120, 60, 245
Box = tuple[float, float, float, float]  # left, top, width, height
Corners = tuple[int, int, int, int]  # left, top, right, bottom


def pages_of(name: str) -> Iterator[tuple[str, Pixels, list[Box]]]:
    """Each page's name, pixels, and the upright boxes of its lines.

    Without initials, which the ground truth of some manuscripts has as lines of their own.
    """
    for file in sorted((DATA / name).rglob("*.xml")):
        if file.name.startswith("METS"):
            continue
        (layout,) = SETS[name](defusedxml.ElementTree.fromstring(file.read_bytes()))
        beside = file.parent.relative_to(DATA / name).as_posix()
        image = DATA / name / find_image(DATA / name, beside, layout.image, file.stem)
        page = open_image(image, "L", ImageLimits(max_pixels=100_000_000, max_side_px=20_000))
        height, width = page.shape
        scale = np.array([width / (layout.width or width), height / (layout.height or height)])
        pieces = [
            piece for region in layout.regions for piece in region.pieces if not _is_initial(piece)
        ]
        polygons = [piece.polygon for piece in pieces if piece.polygon is not None]
        boxes = [box_of(np.asarray(polygon) * scale) for polygon in polygons]
        yield f"{file.parent.name}-{file.stem}", page, boxes


def _is_initial(line: Piece) -> bool:
    text = line.text if line.text is not None else "".join(word.text or "" for word in line.pieces)
    return len(text.strip()) == 1


def composed_page(
    words: Sequence[Pixels], texts: Sequence[str], columns: int, degrees: float, seed: int
) -> tuple[Pixels, list[Box], list[str]]:
    """A page of lines of words in columns, rotated clockwise.

    Also the box of each line on the rotated page, and its text, column by column.
    """
    draw = np.random.default_rng(seed)
    page = np.full((HEIGHT_PX, WIDTH_PX), PAPER, np.uint8)
    column_px = (WIDTH_PX - 2 * MARGIN_PX - GAP_PX * (columns - 1)) // columns
    corners, said = list[Corners](), list[str]()
    for column in range(columns):
        left, top = MARGIN_PX + column * (column_px + GAP_PX), MARGIN_PX
        while top < HEIGHT_PX - MARGIN_PX - 80:
            right, tall, line = _line(page, words, left, top, column_px, draw)
            if line:
                corners.append((left, top, right, top + tall))
                said.append(" ".join(texts[index] for index in line))
            top += tall + int(draw.integers(12, 26)) + (40 if draw.random() < 0.1 else 0)
    boxes = [_rotated(inked(page, corner), degrees) for corner in corners]
    if degrees:
        image = Image.fromarray(page)
        turned = image.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=PAPER)
        return np.asarray(turned), boxes, said
    return page, boxes, said


def _line(
    page: Pixels,
    words: Sequence[Pixels],
    left: int,
    top: int,
    width: int,
    draw: np.random.Generator,
) -> tuple[int, int, list[int]]:
    """Paste one line; its right end, its height, and the indices of its words."""
    x, chosen = left, list[tuple[int, int]]()
    for _ in range(20):
        index = int(draw.integers(len(words)))
        if x + words[index].shape[1] > left + width:
            break
        chosen.append((x, index))
        x += words[index].shape[1] + 14
    for start, index in chosen:
        word = words[index]
        part = page[top : top + word.shape[0], start : start + word.shape[1]]
        np.minimum(part, word, out=part)
    tall = max((words[index].shape[0] for _, index in chosen), default=40)
    return x - 14, tall, [index for _, index in chosen]


def _rotated(corners: Corners, degrees: float) -> Box:
    left, top, right, bottom = corners
    angle, centre = np.deg2rad(degrees), np.array([WIDTH_PX, HEIGHT_PX]) / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    polygon = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return box_of((polygon - centre) @ turn + centre)


def inked(page: Pixels, corners: Corners) -> Corners:
    """A pasted line's corners shrunk to its ink: words come with margins of their own."""
    left, top, right, bottom = corners
    ys, xs = np.nonzero(page[top:bottom, left:right] < 170)
    if not len(ys):
        return corners
    first, last = (left + int(xs.min()), top + int(ys.min())), (int(xs.max()), int(ys.max()))
    return *first, left + last[0] + 1, top + last[1] + 1


def box_of(polygon: "np.ndarray") -> Box:
    """The upright box around a polygon."""
    (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def matches(boxes: Sequence[Box], others: Sequence[Box]) -> int:
    """How many of `boxes` have a partner with an IoU of at least a half."""
    return sum(max((iou(one, other) for other in others), default=0) >= 0.5 for one in boxes)


def inside(boxes: Sequence[Box], truth: Sequence[Box]) -> list[Box]:
    """Those of `boxes` whose middles lie in the convex hull of the true boxes."""
    corners = [
        (x, y) for left, top, w, h in truth for x in (left, left + w) for y in (top, top + h)
    ]
    hull = cv2.convexHull(np.array(corners, np.float32))
    middles = [(left + width / 2, top + height / 2) for left, top, width, height in boxes]
    return [
        box
        for box, middle in zip(boxes, middles, strict=True)
        if cv2.pointPolygonTest(hull, middle, False) >= 0
    ]


def iou(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def photographed(
    page: Pixels, boxes: Sequence[Box], seed: int, table: float = 60
) -> tuple[Pixels, list[Box]]:
    """The page as a phone sees it: on a table of that value with its grain, askew, half in shade.

    Also the boxes of its lines on the photo.
    """
    draw, (tall, wide) = np.random.default_rng(seed), page.shape
    height, width = round(1.35 * tall), round(1.5 * wide)
    grain = draw.normal(table, table / 4, (height // 3 + 1, width // 40 + 1))
    wood = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
    corners = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]], np.float32)
    shift = np.array([(width - wide) / 2, (height - tall) / 2])
    moved = corners + shift + draw.uniform(-0.03, 0.03, (4, 2)) * [wide, tall]
    turn = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    seen = cv2.warpPerspective(page, turn, (width, height), flags=cv2.INTER_AREA)
    is_page = cv2.warpPerspective(np.full_like(page, 255), turn, (width, height)) > 127
    lit = np.where(is_page, seen, wood) * np.linspace(1, 0.6, width)
    noisy = np.clip(lit + draw.normal(0, 4, lit.shape), 0, 255).astype(np.uint8)
    found = list[Box]()
    for left, top, across, down in boxes:
        xs, ys = (left, left + across), (top, top + down)
        corner = np.array([[x, y] for x in xs for y in ys], np.float32)[None]
        placed = cv2.perspectiveTransform(corner, turn)[0]
        (x, y), (right, bottom) = placed.min(axis=0), placed.max(axis=0)
        found.append((float(x), float(y), float(right - x), float(bottom - y)))
    return np.asarray(cv2.GaussianBlur(noisy, (3, 3), 0)), found
