"""Pages and lines for tests and benchmarks: word images of the embedded data set, pasted.

No font is needed, so they come out alike on every machine.
"""

from collections.abc import Callable, Sequence

from PIL import Image

from ocr.dataset.read import Dataset
from ocr.images import open_image

LINE_PX, GAP_PX = 32, 8


def pasted_page(
    words: Dataset, order: Sequence[int], size: tuple[int, int], fits: Callable[[str], bool]
) -> tuple[Image.Image, str]:
    """A page of `size` (width and height in pixels) and its text.

    Words are taken in this order, from left to right and from top to bottom, while there is room
    and while `fits` holds for the text.
    """
    page, texts, x, y = Image.new("RGB", size, "white"), list[str](), GAP_PX, 0
    for index in order:
        if not fits(" ".join([*texts, words.texts[index]])):
            break
        word = Image.fromarray(open_image(words.image_bytes(index), "RGB"))
        width_px = max(1, round(word.width * (LINE_PX - 4) / word.height))
        word = word.resize((width_px, LINE_PX - 4))
        if x + word.width > size[0]:
            x, y = GAP_PX, y + LINE_PX
        if y + LINE_PX > size[1]:
            break
        page.paste(word, (x, y + 2))
        x, texts = x + word.width + GAP_PX, [*texts, words.texts[index]]
    return page, " ".join(texts)


def pasted_line(words: Dataset, order: Sequence[int], height_px: int) -> tuple[Image.Image, str]:
    """One line of all these words, `height_px` high, and its text."""
    images = [Image.fromarray(open_image(words.image_bytes(index), "L")) for index in order]
    scaled = [
        image.resize((max(1, round(image.width * height_px / image.height)), height_px))
        for image in images
    ]
    gap = height_px // 3
    line = Image.new("L", (sum(image.width + gap for image in scaled) + gap, height_px), 255)
    x = gap
    for image in scaled:
        line.paste(image, (x, 0))
        x += image.width + gap
    return line, " ".join(words.texts[index] for index in order)
