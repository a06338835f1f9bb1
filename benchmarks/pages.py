"""Lines found on pages against their ground truth: recall and precision at an IoU of 0.5, and
pictures to look at.

python benchmarks/pages.py [--pictures FOLDER]      # ../shared/data: print and handwriting of four
centuries; and pages drawn from the embedded words
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent.parent))

from ocr.dataset.read import Dataset
from ocr.images import Pixels, open_image
from ocr.pages import PageLine, find_lines
from tests.support.composed_pages import SETS, Box, composed_page, matches, pages_of

COMPOSED = 12  # pages: 1 to 3 columns, straight and rotated by up to 3 degrees


def main() -> None:
    """A row for each set of pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    print(
        "| pages | lines | found | recall | precision | seconds a page "
        "|\n|---|---:|---:|---:|---:|---:|"
    )
    for name in ("drawn", *SETS):
        truths = found_count = hits = right = pages = 0
        seconds = 0.0
        for stem, page, truth in composed_pages() if name == "drawn" else pages_of(name):
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
                f"| {name} ({pages}) | {truths} | {found_count} | {hits / truths:.1%} | "
                f"{right / max(1, found_count):.1%} | {seconds / pages:.2f} |",
                flush=True,
            )


def composed_pages() -> Iterator[tuple[str, Pixels, list[Box]]]:
    """Pages of embedded words."""
    data = Dataset.open("odia_words", "validation")
    words, texts = [open_image(data.image_bytes(index)) for index in range(800)], data.texts[:800]
    for number in range(COMPOSED):
        degrees = 0.0 if number % 4 == 0 else float(np.random.default_rng(number).uniform(-3, 3))
        page, boxes, _ = composed_page(
            words, texts, columns=1 + number % 3, degrees=degrees, seed=number
        )
        yield f"{number:02d}", page, boxes


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
