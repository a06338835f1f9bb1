"""Lines found on pages against their ground truth: recall and precision at an IoU of 0.5, and pictures to look at.

python benchmarks/pages.py [--pictures FOLDER]      # ../shared/data: print and handwriting of four centuries; and pages drawn from the embedded words
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import defusedxml.ElementTree
import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent.parent))

from ocr.dataset.read import Dataset
from ocr.images import Pixels, open_image
from ocr.limits import ImageLimits
from ocr.pages import PageLine, find_lines
from ocr.sources import alto, page_xml
from ocr.sources.layout import find_image

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
SETS = {
    "alto_french_print": alto.parse,
    "page_german_latin_print": page_xml.parse,
    "alto_french_handwriting": alto.parse,
    "alto_medieval_manuscripts": alto.parse,
}
DRAWN = 12  # pages: 1 to 3 columns, straight and turned by up to 3 degrees
Box = tuple[float, float, float, float]  # left, top, width, height


def main() -> None:
    """A row for each set of pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    print(
        "| pages | lines | found | recall | precision | seconds a page |\n|---|---:|---:|---:|---:|---:|"
    )
    for name in ("drawn", *SETS):
        truths = found_count = hits = right = pages = 0
        seconds = 0.0
        for stem, page, truth in drawn_pages() if name == "drawn" else pages_of(name):
            began = time.perf_counter()
            found = find_lines(page)
            seconds += time.perf_counter() - began
            boxes = [line.box for line in found]
            matched = matches(truth, boxes)
            pages, truths, found_count, hits, right = (
                pages + 1,
                truths + len(truth),
                found_count + len(found),
                hits + matched,
                right + matches(boxes, truth),
            )
            if arguments.pictures:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                picture(page, found, truth).save(
                    arguments.pictures / f"{name}-{stem}-{matched}-of-{len(truth)}.png"
                )
        if pages:
            print(
                f"| {name} ({pages}) | {truths} | {found_count} | {hits / truths:.1%} | {right / max(1, found_count):.1%} | {seconds / pages:.2f} |",
                flush=True,
            )


def pages_of(name: str) -> Iterator[tuple[str, Pixels, list[Box]]]:
    """Each page's pixels and the upright boxes of its lines."""
    for file in sorted((DATA / name).rglob("*.xml")):
        if file.name.startswith("METS"):
            continue
        layout = SETS[name](defusedxml.ElementTree.fromstring(file.read_bytes()))
        beside = file.parent.relative_to(DATA / name).as_posix()
        image = DATA / name / find_image(DATA / name, beside, layout.image, file.stem)
        page = open_image(image, "L", ImageLimits(max_pixels=100_000_000, max_side_px=20_000))
        lines = [
            piece
            for region in layout.regions
            for piece in region.pieces
            if piece.polygon is not None
        ]
        scale = np.array(
            [
                page.shape[1] / (layout.width or page.shape[1]),
                page.shape[0] / (layout.height or page.shape[0]),
            ]
        )
        yield (
            f"{file.parent.name}-{file.stem}",
            page,
            [box_of(np.asarray(piece.polygon) * scale) for piece in lines],
        )


def drawn_pages() -> Iterator[tuple[str, Pixels, list[Box]]]:
    """Pages of embedded words."""
    data = Dataset.open("odia_words", "validation")
    words, texts = [open_image(data.image_bytes(index)) for index in range(800)], data.texts[:800]
    for number in range(DRAWN):
        degrees = 0.0 if number % 4 == 0 else float(np.random.default_rng(number).uniform(-3, 3))
        page, boxes, _ = drawn_page(
            words, texts, columns=1 + number % 3, degrees=degrees, seed=number
        )
        yield f"{number:02d}", page, boxes


def drawn_page(
    words: Sequence[Pixels], texts: Sequence[str], columns: int, degrees: float, seed: int
) -> tuple[Pixels, list[Box], list[str]]:
    """A page of lines of words in columns, turned clockwise; the box of each line where it is then, and its text; column by column."""
    draw = np.random.default_rng(seed)
    height, width, margin, gap = 1800, 1400, 120, 60
    page = np.full((height, width), 245, np.uint8)
    column_width = (width - 2 * margin - gap * (columns - 1)) // columns
    corners, said = [], []
    for column in range(columns):
        left, top = margin + column * (column_width + gap), margin
        while top < height - margin - 80:
            x, line, spoken = left, [], []
            for _ in range(20):
                index = int(draw.integers(len(words)))
                word = words[index]
                if x + word.shape[1] > left + column_width:
                    break
                line.append((x, word))
                spoken.append(texts[index])
                x += word.shape[1] + 14
            tall = max((word.shape[0] for _, word in line), default=40)
            for place, word in line:
                part = page[top : top + word.shape[0], place : place + word.shape[1]]
                np.minimum(part, word, out=part)
            if line:
                corners.append((left, top, x - 14, top + tall))
                said.append(" ".join(spoken))
            top += tall + int(draw.integers(12, 26)) + (40 if draw.random() < 0.1 else 0)
    turned = (
        np.asarray(Image.fromarray(page).rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=245))
        if degrees
        else page
    )
    angle, centre = np.deg2rad(degrees), np.array([width, height]) / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    boxes = [
        box_of(
            (np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - centre) @ turn
            + centre
        )
        for left, top, right, bottom in (inked(page, corner) for corner in corners)
    ]
    return turned, boxes, said


def inked(page: Pixels, corners: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """A pasted line's box shrunk to its ink: words come with margins of their own."""
    left, top, right, bottom = corners
    ys, xs = np.nonzero(page[top:bottom, left:right] < 170)
    return (
        (
            left + int(xs.min()),
            top + int(ys.min()),
            left + int(xs.max()) + 1,
            top + int(ys.max()) + 1,
        )
        if len(ys)
        else corners
    )


def box_of(polygon: "np.ndarray") -> Box:
    """The upright box around a polygon."""
    (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def matches(boxes: Sequence[Box], others: Sequence[Box]) -> int:
    """How many of `boxes` have a partner with an IoU of at least a half."""
    return sum(max((iou(one, other) for other in others), default=0) >= 0.5 for one in boxes)


def iou(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def picture(page: Pixels, found: Sequence[PageLine], truth: Sequence[Box] = ()) -> Image.Image:
    """Found lines in red with their place in the reading order, true ones in blue."""
    image = Image.fromarray(page).convert("RGB")
    draw, width = ImageDraw.Draw(image), max(2, page.shape[1] // 600)
    for left, top, wide, high in truth:
        draw.rectangle((left, top, left + wide, top + high), outline=(60, 110, 220), width=width)
    for place, line in enumerate(found, start=1):
        points = [(float(x), float(y)) for x, y in line.polygon]
        draw.line([*points, points[0]], fill=(210, 40, 30), width=width)
        draw.text(points[0], str(place), fill=(210, 40, 30), font_size=12 * width, anchor="rb")
    return image


if __name__ == "__main__":
    main()
