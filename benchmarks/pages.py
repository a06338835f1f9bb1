"""Lines found on pages against their ground truth, by both detectors: recall and precision at an
IoU of 0.5, CPU seconds, the error rate of what is read there, and pictures to look at.

python benchmarks/pages.py [--detectors classical] [--sets composed odia] [--pictures FOLDER]

Pages composed of the embedded words, straight and tilted; rendered text in three scripts: straight,
and photographed on a table; and print and handwriting of four centuries from ../shared/data.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent.parent))

from ocr.dataset.read import Dataset
from ocr.images import Pixels, open_image
from ocr.pages import PageLine, cut_lines, find_lines
from ocr.recognizers.factory import load
from ocr.scoring import score_all
from tests.support import composed_pages as support
from tests.support.composed_pages import Box, matches
from tests.support.rendered_pages import TEXTS, rendered_page

COMPOSED = 12  # pages: 1 to 3 columns, straight and rotated by up to 3 degrees
RENDERED = 6  # pages a script: 1 and 2 columns
DETECTORS = ("detector", "classical")


@dataclass(frozen=True)
class Truth:
    """A page, the boxes of its lines, and its text where that is known."""

    name: str
    page: Pixels
    boxes: list[Box]
    text: str | None = None


@dataclass
class Counts:
    """Sums over the pages of a set."""

    found: int = 0
    hits: int = 0
    right: int = 0
    seconds: float = 0.0


def main() -> None:
    """A row for each set of pages and detector."""
    arguments = parsed()
    print(
        "| pages | lines | by | found | recall | precision | CPU s a page | CER |\n"
        "|---|---:|---|---:|---:|---:|---:|---:|"
    )
    for name in arguments.sets:
        truths = list(pages_of(name))
        lines = sum(len(truth.boxes) for truth in truths)
        for detector in arguments.detectors if truths else ():
            counts, pairs = Counts(), list[tuple[str, str]]()
            for truth in truths:
                found = measured(truth, detector, counts)
                if truth.text is not None:
                    recogniser = load(Path(name.split()[0]))
                    read = recogniser.read(cut_lines(truth.page, found))
                    pairs.append((truth.text, "\n".join(one.text for one in read if one.text)))
                if arguments.pictures:
                    arguments.pictures.mkdir(parents=True, exist_ok=True)
                    file = f"{name}-{truth.name}-{detector}.png".replace(" ", "-")
                    picture(truth.page, found, truth.boxes).save(arguments.pictures / file)
            print(
                f"| {name} ({len(truths)}) | {lines} | {detector} | {counts.found} | "
                f"{counts.hits / lines:.1%} | {counts.right / max(1, counts.found):.1%} | "
                f"{counts.seconds / len(truths):.2f} | "
                f"{f'{score_all(pairs).cer:.2%}' if pairs else '–'} |",
                flush=True,
            )


def parsed() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=DETECTORS)
    drawn = [f"{script}{kind}" for script in TEXTS for kind in ("", " photographed")]
    everything = ["composed", *drawn, *support.SETS]
    parser.add_argument("--sets", nargs="+", choices=everything, default=everything)
    return parser.parse_args()


def measured(truth: Truth, detector: str, counts: Counts) -> list[PageLine]:
    """Find the lines of a page, and add to the counts."""
    began = time.process_time()
    found = find_lines(truth.page, detector=detector)
    counts.seconds += time.process_time() - began
    boxes = [line.box for line in found]
    counts.found += len(found)
    counts.hits += matches(truth.boxes, boxes)
    counts.right += matches(boxes, truth.boxes)
    return found


def pages_of(name: str) -> Iterator[Truth]:
    """The pages of a set."""
    script, _, kind = name.partition(" ")
    if name == "composed":
        yield from composed_pages()
    elif script in TEXTS:
        for number in range(RENDERED):
            page, boxes, text = rendered_page(script, 1 + number % 2, number)
            if kind:
                page, boxes = support.photographed(page, boxes, number)
            yield Truth(f"{number:02d}", page, boxes, text)
    else:
        for stem, page, boxes in support.pages_of(name):
            yield Truth(stem, page, boxes)


def composed_pages() -> Iterator[Truth]:
    """Pages of embedded words."""
    data = Dataset.open("odia_words", "validation")
    words, texts = [open_image(data.image_bytes(index)) for index in range(800)], data.texts[:800]
    for number in range(COMPOSED):
        degrees = 0.0 if number % 4 == 0 else float(np.random.default_rng(number).uniform(-3, 3))
        page, boxes, _ = support.composed_page(
            words, texts, columns=1 + number % 3, degrees=degrees, seed=number
        )
        yield Truth(f"{number:02d}", page, boxes)


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
