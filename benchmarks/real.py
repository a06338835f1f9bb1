"""The bases on real images, none of which they ever saw, beside Tesseract's models (Debian's
tesseract-ocr-ori, -ben, -tha).

  python benchmarks/real.py [--data ../shared/data] [--bundle SCRIPT=PATH …]

The folders hold images x.png or x.jpg, each with its text in x.gt.txt; every image is given to both
as it comes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tesseract
from PIL import Image

from ocr.images import open_image
from ocr.recognizers.factory import load
from ocr.scoring import score_all
from ocr.text import normalise

PROJECT = Path(__file__).resolve().parent.parent


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


def by_tesseract(images: Sequence[Path], real: RealSet) -> list[str]:
    """Each image as it comes, but as a PNG."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number:06}.png" for number in range(len(images))]
        for image, path in zip(images, paths, strict=True):
            Image.open(image).convert("RGB").save(path)
        return [normalise(text) for text in tesseract.read(paths, real.language, real.page_mode)[1]]


def main() -> None:
    """Print a line a set: CER and exact match of both."""
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
    options = parser.parse_args()
    bundles = dict(word.split("=", 1) for word in options.bundle)
    print(
        "| images | number | ours: CER | exact | Tesseract: CER | exact "
        "|\n|---|---|---|---|---|---|"
    )
    for real in SETS:
        images = sorted(
            file
            for file in (options.data / real.folder).iterdir()
            if file.suffix in (".png", ".jpg")
        )
        texts = [
            normalise(
                image.with_suffix("").with_suffix(".gt.txt").read_text(encoding="utf-8").strip()
            )
            for image in images
        ]
        recognizer = load(Path(bundles.get(real.base, real.base)))
        ours = [
            reading.text
            for reading in recognizer.read(
                [open_image(image, recognizer.image_mode) for image in images]
            )
        ]
        found = [
            score_all(zip(texts, read, strict=True)) for read in (ours, by_tesseract(images, real))
        ]
        print(
            f"| {real.folder} | {len(images)} | "
            + " | ".join(f"{counts.cer:.2%} | {counts.exact_match:.1%}" for counts in found)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
