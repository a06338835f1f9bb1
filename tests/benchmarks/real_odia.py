"""A bundle against Tesseract's Odia model (Debian's tesseract-ocr-ori) on real print, drawn characters and the held-out face.

  python tests/benchmarks/real_odia.py runs/odia-ctc/bundle ../shared/data

The folders odia_print_lines and odia_drawn_characters hold images x.png or x.jpg, each with its text in x.gt.txt.
"""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ocr.dataset.read import Dataset
from ocr.images import open_image
from ocr.recognizers.base import load
from ocr.scoring import score_all

Read = Callable[[list[bytes], int], list[str]]


def tesseract(images: list[bytes], page_mode: int) -> list[str]:
    """Each image read by the tesseract command as it comes, as one line (7) or one character (10)."""
    texts = []
    for image in images:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(image)).convert("RGB").save(buffer, "PNG")
        command = ["tesseract", "-", "-", "-l", "ori", "--psm", str(page_mode)]
        texts.append(subprocess.run(command, input=buffer.getvalue(), capture_output=True, check=True).stdout.decode().strip())
    return texts


def samples(folder: Path) -> tuple[list[bytes], list[str]]:
    """Images and their texts."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".png", ".jpg"))
    return [file.read_bytes() for file in files], [file.with_suffix("").with_suffix(".gt.txt").read_text(encoding="utf-8").strip() for file in files]


def main(bundle: Path, data: Path) -> None:
    """Print CER and exact match of both on each set."""
    recognizer = load(bundle)
    held_out = Dataset.open("odia_words", "validation")
    chosen = range(0, len(held_out), 5)
    sets = {
        "held-out face, every fifth word": ([held_out.image_bytes(i) for i in chosen], [held_out.texts[i] for i in chosen], 7),
        "odia_print_lines": (*samples(data / "odia_print_lines"), 7),
        "odia_drawn_characters": (*samples(data / "odia_drawn_characters"), 10),
    }

    def ours(images: list[bytes], page_mode: int) -> list[str]:
        return [reading.text for reading in recognizer.read([open_image(image, recognizer.image_mode) for image in images])]

    readers: dict[str, Read] = {bundle.parent.name: ours, "Tesseract ori": tesseract}
    for name, (images, texts, page_mode) in sets.items():
        for reader, read in readers.items():
            counts = score_all(zip(texts, read(images, page_mode), strict=True))
            print(
                f"{name:<34}{reader:<16}{counts.samples:>6} images  CER {counts.cer:7.2%}  graphemes {counts.grapheme_cer:7.2%}  exact {counts.exact_match:6.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
