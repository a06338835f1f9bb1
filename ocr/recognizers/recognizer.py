"""The one interface by which training, evaluation, the shell and the server read images."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from ocr.images import Mode, Pixels, open_image
from ocr.sample import Reading


class Recognizer(Protocol):
    """A reader of images; a neighbour in the list never changes a reading."""

    name: str
    image_mode: Literal["L", "RGB"]
    reads_pages: bool  # reads whole pages; else a page is cut into lines first (ocr/pages.py)

    def read(self, images: Sequence[Pixels | Path | str]) -> list[Reading]:
        """Return one Reading per image, in the same order; ImageRefused names a bad file.

        An image is a file, or pixels as `ocr.images.open_image` gives them in this recogniser's
        mode.
        """
        ...


def opened(images: Sequence[Pixels | Path | str], mode: Mode) -> list[Pixels]:
    """Return the pixels of each image."""
    return [
        open_image(Path(image), mode) if isinstance(image, (str, Path)) else image
        for image in images
    ]


def like_sizes(sizes: Sequence[int], fits: Callable[[list[int], int], bool]) -> Iterator[list[int]]:
    """Yield batches of indices, by rising size.

    `fits(batch, index)` says whether one more index fits into a batch that has some.
    """
    batch = list[int]()
    for index in sorted(range(len(sizes)), key=lambda index: sizes[index]):
        if batch and not fits(batch, index):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
