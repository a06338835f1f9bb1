"""The bases on real images, none of which they ever saw, beside Tesseract's models (Debian's
tesseract-ocr-ori, -ben, -tha).

  python benchmarks/real.py [--data ../shared/data] [--bundle SCRIPT=PATH …] [--half choose]
      [--details] [--stacked]

The folders hold images x.png or x.jpg, each with its text in x.gt.txt; every image is given to both
as it comes. `--half choose` reads the documents that recipes are chosen by, `--half report` the
others: a document is in one half whole, and texts of the reported half that the other half has too
are counted apart ("unseen" leaves them out). `--details` adds the digits alone, the lines by
length, a 95 % interval (1,000 draws of documents) and how confident right and wrong lines are.
`--stacked` puts the lines of a document under each other on white paper and reads the page, whose
lines have to be found first; slivers of neighbours that the line images have are on the page too.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tesseract
from PIL import Image

from ocr.images import Pixels, open_image
from ocr.keyed import fixed_generator, share_of
from ocr.pages import cut_lines, lines_for
from ocr.recognizers.factory import load
from ocr.recognizers.recognizer import Recognizer
from ocr.sample import Reading
from ocr.scoring import Counts, confusions, score, score_all
from ocr.text import normalise

PROJECT = Path(__file__).resolve().parent.parent
HALVES = {"choose": (0.0, 0.5), "report": (0.5, 1.0), "all": (0.0, 1.0)}
LENGTHS = ((1, 19), (20, 45), (46, 1000))
DRAWS = 1000


@dataclass(frozen=True)
class RealSet:
    """A folder of ../shared/data, the base that reads it, Tesseract's model and its page mode.

    7 a line, 10 a character.
    """

    folder: str
    base: str
    language: str
    page_mode: int = 7


SETS = (
    RealSet("odia_print_lines", "odia", "ori"),
    RealSet("odia_drawn_characters", "odia", "ori", 10),
    RealSet("bangla_handwriting_lines", "bangla", "ben"),
    RealSet("thai_print_lines", "thai", "tha"),
    RealSet("thai_drawn_digits", "thai", "tha", 10),
)


def by_tesseract(images: Sequence[Path], real: RealSet) -> tuple[list[str], float]:
    """Texts and CPU seconds; each image as it comes, but as a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number:06}.png" for number in range(len(images))]
        for image, path in zip(images, paths, strict=True):
            Image.open(image).convert("RGB").save(path)
        seconds, texts = tesseract.read(paths, real.language, real.page_mode)
    return [normalise(text) for text in texts], seconds


@dataclass(frozen=True)
class Line:
    """A real image with its text and the document that it was cut from."""

    image: Path
    text: str

    @property
    def document(self) -> str:
        """The name without the line's: `party_list_10_2` of `party_list_10_2_page3_y0640`."""
        return re.sub(r"(_page\d+)?_[yl]\d+$", "", self.image.stem)

    @property
    def place(self) -> float:
        """A number in [0, 1) that depends on the document alone."""
        return share_of(self.document, "lipi: real documents")


def lines_of(folder: Path) -> list[Line]:
    """All images of a folder, in order."""
    images = sorted(file for file in folder.iterdir() if file.suffix in (".png", ".jpg"))
    return [
        Line(image, normalise(image.with_suffix("").with_suffix(".gt.txt").read_text("utf-8")))
        for image in images
    ]


def stacked(lines: Sequence[Line]) -> Pixels:
    """One page [H, W] of a document's line images, on white, half a line apart."""
    images = [open_image(line.image, "L") for line in lines]
    gap = int(statistics.median(image.shape[0] for image in images)) // 2
    width = max(image.shape[1] for image in images) + 2 * gap
    page = np.full((gap + sum(image.shape[0] + gap for image in images), width), 255, np.uint8)
    top = gap
    for image in images:
        page[top : top + image.shape[0], gap : gap + image.shape[1]] = image
        top += image.shape[0] + gap
    return page


def print_stacked(lines: Sequence[Line], recognizer: Recognizer) -> None:
    """A row for the pages that the documents' lines make, with spaces for line ends."""
    documents: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        documents[line.document].append(line)
    pairs = []
    for members in documents.values():
        page = stacked(members)
        crops = cut_lines(page, lines_for(recognizer, page))
        found = [reading.text for reading in recognizer.read(crops)]
        pairs.append((" ".join(line.text for line in members), " ".join(filter(None, found))))
    print(f"| … stacked into pages | {len(pairs)} | {rates(pairs)} | | |", flush=True)


def rates_and_speed(lines: Sequence[Line], read: Sequence[str], seconds: float) -> str:
    """CER, exact match and images per CPU second, loading included, as three columns."""
    pairs = [(line.text, text) for line, text in zip(lines, read, strict=True)]
    return f"{rates(pairs)} | {len(lines) / seconds:.0f}"


def rates(pairs: Sequence[tuple[str, str]]) -> str:
    """CER and exact match, as two columns."""
    counts = score_all(pairs)
    return f"{counts.cer:.2%} | {counts.exact_match:.1%}"


def details(lines: Sequence[Line], others: set[str], read: Sequence[str]) -> Iterator[str]:
    """Rows of parts of a set, as `what | lines | CER | exact`."""
    pairs = [(line.text, text) for line, text in zip(lines, read, strict=True)]
    unseen = [pair for pair in pairs if pair[0] not in others]
    if len(unseen) < len(pairs):
        yield f"unseen texts | {len(unseen)} | {rates(unseen)}"
    for low, high in LENGTHS:
        some = [pair for pair in pairs if low <= len(pair[0]) <= high]
        if some:
            longest = max(len(text) for text, _ in some)
            yield f"{low} to {longest} characters | {len(some)} | {rates(some)}"
    digits = sum(character.isdecimal() for text, _ in pairs for character in text)
    if digits:
        wrong = sum(
            count
            for (expected, got), count in confusions(pairs).items()
            if any(map(str.isdecimal, expected or got))
        )
        yield f"digits alone | {digits} | {wrong / digits:.2%} | "
    low_cer, high_cer = interval(lines, pairs)
    documents = len({line.document for line in lines})
    yield f"95 % interval | {documents} documents | {low_cer:.2%} to {high_cer:.2%} | "


def interval(lines: Sequence[Line], pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of the CER, documents drawn again with replacement."""
    documents = defaultdict[str, Counts](Counts)
    for line, pair in zip(lines, pairs, strict=True):
        documents[line.document] += score(*pair)
    errors_DC = np.array([[c.character_edits, c.characters] for c in documents.values()])
    drawn = fixed_generator(1).integers(len(errors_DC), size=(DRAWS, len(errors_DC)))
    sums = errors_DC[drawn].sum(axis=1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return float(low), float(high)


def print_details(
    lines: Sequence[Line], others: set[str], ours: Sequence[Reading], theirs: list[str] | None
) -> None:
    """Print the parts of a set, Tesseract's figures after ours."""
    mine = details(lines, others, [reading.text for reading in ours])
    their_rows = details(lines, others, theirs) if theirs else None
    for row in mine:
        other = next(their_rows).split(" | ", 2)[2] if their_rows else ""
        print(f"| {row} | {other} |", flush=True)
    by_right = defaultdict[bool, list[float]](list)
    for line, reading in zip(lines, ours, strict=True):
        by_right[line.text == reading.text].append(reading.confidence)
    for right, found in sorted(by_right.items()):
        what, middle = ("wrong", "right")[right], statistics.median(found)
        print(f"| median confidence, {what} | {len(found)} | {middle:.2f} | | | |")


def main() -> None:
    """Print a line a set, and with --details the parts of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared" / "data")
    parser.add_argument(
        "--bundle",
        nargs="*",
        default=[],
        metavar="SCRIPT=PATH",
        help="another bundle than the base of that name",
    )
    parser.add_argument("--half", choices=HALVES, default="all")
    parser.add_argument("--sets", nargs="*", default=[real.folder for real in SETS])
    parser.add_argument("--details", action="store_true")
    parser.add_argument("--stacked", action="store_true", help="also as pages")
    parser.add_argument("--ours", action="store_true", help="without Tesseract")
    options = parser.parse_args()
    bundles = dict(word.split("=", 1) for word in options.bundle)
    print(
        "| images | number | ours: CER | exact | images per CPU second "
        "| Tesseract: CER | exact | images per CPU second |\n|---|---|---|---|---|---|---|---|"
    )
    low, high = HALVES[options.half]
    for real in SETS:
        if real.folder not in options.sets:
            continue
        everything = lines_of(options.data / real.folder)
        lines = [line for line in everything if low <= line.place < high]
        others = {line.text for line in everything if not low <= line.place < high}
        if not lines:
            continue
        began = time.process_time()
        recognizer = load(Path(bundles.get(real.base, real.base)))
        ours = recognizer.read([open_image(line.image, recognizer.image_mode) for line in lines])
        columns = [
            rates_and_speed(lines, [each.text for each in ours], time.process_time() - began)
        ]
        theirs = None
        if not options.ours:
            theirs, seconds = by_tesseract([line.image for line in lines], real)
            columns.append(rates_and_speed(lines, theirs, seconds))
        print(f"| {real.folder} | {len(lines)} | {' | '.join(columns)} |", flush=True)
        if options.stacked:
            print_stacked(lines, recognizer)
        if options.details:
            print_details(lines, others, ours, theirs)


if __name__ == "__main__":
    main()
