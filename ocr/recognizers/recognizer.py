"""The one interface that training, evaluation, the shell and the server read images with."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from ocr.images import Mode, Pixels, open_image
from ocr.sample import Reading


class Recognizer(Protocol):
    """Reads images; a neighbour in the list never changes a reading."""

    name: str
    image_mode: Literal["L", "RGB"]
    reads_pages: bool  # whole; else a page is cut into lines first (ocr/pages.py)

    def read(self, images: Sequence[Pixels | Path | str]) -> list[Reading]:
        """One Reading per image, in the same order: a file, or its pixels (`ocr.images.open_image` in this recogniser's mode). ImageRefused names a bad file."""
        ...


def opened(images: Sequence[Pixels | Path | str], mode: Mode) -> list[Pixels]:
    """The pixels of each."""
    return [
        open_image(Path(image), mode) if isinstance(image, (str, Path)) else image
        for image in images
    ]


def like_sizes(sizes: Sequence[int], fits: Callable[[list[int], int], bool]) -> Iterator[list[int]]:
    """Places, the smallest first, in batches; `fits(batch, place)` says whether one more place goes into a batch that has some."""
    batch = list[int]()
    for place in sorted(range(len(sizes)), key=lambda place: sizes[place]):
        if batch and not fits(batch, place):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
