"""Results of documents as files: their names, and which of them are there."""

import os
from collections.abc import Sequence
from pathlib import Path

from ocr.errors import UserError
from ocr.images import Pixels, encode_image
from ocr.place import Place
from ocr.reading.inputs import Input
from ocr.reading.page import Document
from ocr.writers.formats import Format

_DIGITS = 4  # of the number of a page in a file's name


class Results:
    """Files of one format in a folder, or at an s3:// or gs:// address.

    A document of several pages in a format of pages has a file each: NAME-0001.xml, and so on. With
    `pages` the name has them, NAME_p2-3.txt: results of other pages are other files.
    """

    def __init__(self, output: str, format: Format, pages: str | None = None) -> None:
        self.place, self.format, self._pages = Place(output), format, pages

    def has(self, item: Input, first_page: int = 1) -> bool:
        """Return whether the item's result is there: its file, or that of its first page.

        The first page's file is written last.
        """
        return any(self.place.has(name) for name in self._names(item, first_page))

    def missing(self, items: Sequence[Input], first_page: int = 1) -> list[Input]:
        """Return the items whose result is not there; of a bucket with one listing."""
        if self.place.is_local:
            return [item for item in items if not self.has(item, first_page)]
        there = set(self.place.names())
        return [item for item in items if there.isdisjoint(self._names(item, first_page))]

    def _names(self, item: Input, first_page: int) -> list[str]:
        alone = self._name(item)
        return [alone, self._page(item, first_page)] if self.format.pages_apart else [alone]

    def require_other(self, item: Input) -> None:
        """Raise UserError where the result would replace the file that is read."""
        if not (self.place.is_local and item.is_local):
            return
        path = Path(self.place.path, self._name(item))
        if path.exists() and path.samefile(item.name):
            raise UserError(f"{item.name}: the result would replace it; name another output")

    def write_page_image(self, item: Input, number: int, pixels: Pixels) -> str:
        """Write a page's image, and return its name beside the results."""
        name = f"{self._page(item, number).removesuffix(self.format.suffix)}.png"
        self.place.write(name, encode_image(pixels, "PNG"))
        return Path(name).name

    def write(self, item: Input, document: Document, images: dict[int, str], data: bytes) -> None:
        """Write a document in the format; OSError where that cannot be done."""
        if not self.format.pages_apart:
            names = images or {page.number: self._path_to(item) for page in document.pages}
            content = self.format.write(document, names, data)
            self.place.write(self._name(item), content)
            return
        for page in reversed(document.pages):
            alone = Document(document.source, (page,))
            names = {page.number: images.get(page.number) or self._path_to(item)}
            name = self._page(item, page.number) if images else self._name(item)
            self.place.write(name, self.format.write(alone, names, data))

    def _path_to(self, item: Input) -> str:
        """Return the path of what was read from the folder of its result."""
        if not (self.place.is_local and item.is_local):
            return item.name
        folder = Path(self.place.path, item.target).parent
        return Path(os.path.relpath(item.name, folder)).as_posix()

    def _name(self, item: Input, more: str = "") -> str:
        pages = f"_p{self._pages}" if self._pages else ""
        return f"{item.target}{pages}{more}{self.format.suffix}"

    def _page(self, item: Input, number: int) -> str:
        return self._name(item, f"-{number:0{_DIGITS}d}")
