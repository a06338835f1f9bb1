"""The one interface that training, evaluation, the shell and the server read images with."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from ocr.errors import UserError
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


def load(bundle: Path, backend: str | None = None, device: str | None = None) -> Recognizer:
    """The recogniser in a bundle (or one that ships, by its name), its files verified first; backend and device default to the bundle's own choice."""
    from ocr.bundle import open_bundle

    opened = open_bundle(bundle)
    if opened.family == "vlm":
        from ocr.recognizers.vlm.adapter import load_vlm

        return load_vlm(opened, backend, device)
    if opened.family != "ctc":
        raise UserError(
            f"{bundle}: a bundle of the family {opened.family!r}, which this version cannot read; update lipi-ocr"
        )
    from ocr.recognizers.ctc.reading import load_ctc

    return load_ctc(opened, backend, device)


def load_all(bundles: str, backend: str | None = None, device: str | None = None) -> Recognizer:
    """The recogniser of `BUNDLE`, or of `BUNDLE,BUNDLE,…` one that votes by confidence."""
    members = [load(Path(bundle), backend, device) for bundle in bundles.split(",")]
    if len(members) == 1:
        return members[0]
    from ocr.recognizers.ensemble import Ensemble

    return Ensemble(members)
