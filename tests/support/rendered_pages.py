"""Pages of running text, rendered in a font, whose lines and texts are known."""

import lzma
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ocr.images import Pixels
from ocr.sources.files import SHIPPED_TEXTS
from ocr.text import normalise
from tests.support.composed_pages import GAP_PX, MARGIN_PX, PAPER, Box

FOLDER = "/usr/share/fonts/truetype/noto/"
TEXTS = {
    "odia": ("mannkibaat.lines.txt.xz", "NotoSansOriya-Regular.ttf"),
    "bangla": ("langdata.training_text.txt.xz", "NotoSansBengali-Regular.ttf"),
    "thai": ("thaigov.lines.txt.xz", "NotoSansThai-Regular.ttf"),
}
WIDTH_PX, HEIGHT_PX = 1654, 2339  # A4 at 200 dpi
LEAST_WORDS = {"odia": 2, "bangla": 2, "thai": 1}


def rendered_page(script: str, columns: int = 1, seed: int = 0) -> tuple[Pixels, list[Box], str]:
    """A page of lines in columns, the box of each line's ink, and the text of the page."""
    draw, page = np.random.default_rng(seed), Image.new("L", (WIDTH_PX, HEIGHT_PX), PAPER)
    size = int(draw.integers(28, 44))
    font = ImageFont.truetype(FOLDER + TEXTS[script][1], size, layout_engine=ImageFont.Layout.RAQM)
    width = (WIDTH_PX - 2 * MARGIN_PX - GAP_PX * (columns - 1)) // columns
    pen, boxes, said = ImageDraw.Draw(page), list[Box](), list[str]()
    lines = _fitting(script, font, width, seed)
    for column in range(columns):
        left, baseline = MARGIN_PX + column * (width + GAP_PX), MARGIN_PX + size
        while baseline < HEIGHT_PX - MARGIN_PX:
            text = next(lines)
            place = (left, baseline)
            pen.text(place, text, font=font, fill=30, anchor="ls")
            x, y, right, bottom = pen.textbbox(place, text, font=font, anchor="ls")
            boxes.append((x, y, right - x, bottom - y))
            said.append(text)
            # a paragraph ends
            baseline += round(size * (1.7 if draw.random() > 0.1 else 2.6))
    return np.asarray(page), boxes, "\n".join(said)


def _fitting(script: str, font: ImageFont.FreeTypeFont, width: int, seed: int) -> Iterator[str]:
    """Lines of the shipped text, each as long as the column allows."""
    content = lzma.decompress((SHIPPED_TEXTS / script / TEXTS[script][0]).read_bytes()).decode()
    texts = [normalise(line) for line in content.splitlines()]
    order = np.random.default_rng(seed).permutation(len(texts))
    for index in order:
        words = texts[index].split(" ")
        while words and font.getlength(" ".join(words)) > width:
            words.pop()
        if len(words) >= LEAST_WORDS[script] and len(" ".join(words)) >= 6:
            yield " ".join(words)
