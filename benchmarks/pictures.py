"""The pictures of README and docs, made anew of what they show.

  python benchmarks/pictures.py [correct] [lines] [report] [sweep]

Needs chromium. `report` shows runs/odia-ctc, `sweep` shows runs/tiny-sweep; both are made first
where they are missing, in five and two minutes.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from ocr.dataset.read import Dataset  # noqa: E402
from ocr.images import encode_image, open_image  # noqa: E402
from ocr.reading.config import ReadConfig  # noqa: E402
from ocr.reading.document import read_pages  # noqa: E402
from ocr.recognizers.factory import load  # noqa: E402
from tests.support.browser import browser, opened, until  # noqa: E402
from tests.support.composed_pages import composed_page  # noqa: E402
from tests.support.running import endpoint  # noqa: E402

TARGET = PROJECT / "docs" / "pictures"
WIDE, COLOURS = {"width": 1280, "height": 820}, ("#1769aa", "#b3261e")


def correct() -> None:
    """The endpoint's page: a sample, its lines beside it, one being corrected."""
    with (
        tempfile.TemporaryDirectory() as folder,
        endpoint(Path(folder) / "serve", "autoscaling.max_replicas=1") as running,
        browser() as chromium,
        opened(chromium, running.address) as page,
    ):
        page.set_viewport_size(WIDE)
        page.click("#sample")
        until(page, "document.querySelectorAll('#lines li').length > 3", 60)
        field = page.locator("#lines li textarea").nth(2)
        field.focus()
        field.press("End")
        page.wait_for_timeout(500)
        page.screenshot(path=TARGET / "correct.png")


def lines() -> None:
    """A page in two columns, with the lines that were found and their order."""
    data = Dataset.open("odia_words", "validation")
    words = [open_image(data.image_bytes(index)) for index in range(160)]
    page, *_ = composed_page(words, data.texts[:160], 2, 1.0, 3)
    image = Image.fromarray(page).convert("RGB")
    config = ReadConfig(level="page")
    ((read, _),) = read_pages(load("odia"), encode_image(page), config, "page.png", False)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(read.lines):
        draw.polygon([tuple(point) for point in line.polygon], outline=COLOURS[number % 2], width=2)
    image.thumbnail((1000, 900))
    image.quantize(64).save(TARGET / "lines.png", optimize=True)


def report() -> None:
    """The report of the embedded run."""
    page = PROJECT / "runs" / "odia-ctc" / "report.html"
    if not page.is_file():
        _run("train.py", "configs/odia_ctc.yaml")
    _photographed(page, TARGET / "report.png")


def sweep() -> None:
    """The page of a finished sweep."""
    page = PROJECT / "runs" / "tiny-sweep" / "sweep.html"
    if not page.is_file():
        _run("sweep.py", "configs/sweeps/tiny.yaml", "sweep_name=tiny-sweep")
    _photographed(page, TARGET / "sweep.png")


def _run(script: str, *words: str) -> None:
    subprocess.run([sys.executable, f"ray_jobs/{script}", *words], cwd=PROJECT, check=True)


def _photographed(page: Path, target: Path) -> None:
    with browser() as chromium:
        shown: Any = chromium.new_page(viewport={"width": 1100, "height": 900})
        shown.goto(page.as_uri())
        shown.wait_for_timeout(300)
        shown.screenshot(path=target)
    Image.open(target).convert("RGB").quantize(128).save(target, optimize=True)


PICTURES: dict[str, Callable[[], None]] = {
    "correct": correct,
    "lines": lines,
    "report": report,
    "sweep": sweep,
}


def main() -> None:
    """Make the pictures that are named, else all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pictures", nargs="*", metavar="picture")
    asked = parser.parse_args().pictures or list(PICTURES)
    if unknown := set(asked) - set(PICTURES):
        parser.error(f"{', '.join(unknown)}: expected {', '.join(PICTURES)}")
    TARGET.mkdir(exist_ok=True)
    for name in asked:
        PICTURES[name]()
        print(TARGET / f"{name}.png", flush=True)


if __name__ == "__main__":
    main()
