"""Where results go: a folder or a bucket, each file whole or not there, what is there kept."""

import os
from pathlib import Path
from typing import Any

from ocr.errors import UserError
from ocr.files import write_atomically
from ocr.images import Pixels, encode_image
from ocr.reading.inputs import Input
from ocr.reading.page import Document
from ocr.settings import with_home
from ocr.writers.formats import Format

_DIGITS = 4  # of the number of a page in a file's name


class Results:
    """Files of one format in a folder, or at an s3:// or gs:// address.

    A document of several pages in a format of pages has a file each: NAME-0001.xml, and so on.
    """

    def __init__(self, output: str, format: Format) -> None:
        self.output = output.rstrip("/") if "://" in output else with_home(output)
        self.format = format
        self.is_local = "://" not in self.output
        self._files, self._root = (None, self.output)
        if not self.is_local:
            from ocr.dataset.arrow_cache import filesystem

            self._files, self._root = filesystem(self.output)

    def has(self, item: Input, first_page: int = 1) -> bool:
        """Return whether the item's result is there: its file, or that of its first page.

        The first page's file is written last.
        """
        names = [f"{item.target}{self.format.suffix}"]
        if self.format.pages_apart:
            names.append(self._page(item, first_page))
        return any(self._exists(name) for name in names)

    def require_other(self, item: Input) -> None:
        """Raise UserError where the result would replace the file that is read."""
        if not (self.is_local and item.is_local):
            return
        path = Path(self.output, f"{item.target}{self.format.suffix}")
        if path.exists() and path.samefile(item.name):
            raise UserError(f"{item.name}: the result would replace it; name another output")

    def write_page_image(self, item: Input, number: int, pixels: Pixels) -> str:
        """Write a page's image, and return its name beside the results."""
        name = f"{self._page(item, number).removesuffix(self.format.suffix)}.png"
        self._write(name, encode_image(pixels, "PNG"))
        return Path(name).name

    def write(self, item: Input, document: Document, images: dict[int, str], data: bytes) -> None:
        """Write a document in the format; UserError where that cannot be done."""
        if not self.format.pages_apart:
            names = images or {page.number: self._path_to(item) for page in document.pages}
            content = self.format.write(document, names, data)
            self._write(f"{item.target}{self.format.suffix}", content)
            return
        for page in reversed(document.pages):
            alone = Document(document.source, (page,))
            names = {page.number: images.get(page.number) or self._path_to(item)}
            name = f"{item.target}{self.format.suffix}"
            if images:
                name = self._page(item, page.number)
            self._write(name, self.format.write(alone, names, data))

    def _path_to(self, item: Input) -> str:
        """Return the path of what was read from the folder of its result."""
        if not (self.is_local and item.is_local):
            return item.name
        folder = Path(self.output, item.target).parent
        return Path(os.path.relpath(item.name, folder)).as_posix()

    def _page(self, item: Input, number: int) -> str:
        return f"{item.target}-{number:0{_DIGITS}d}{self.format.suffix}"

    def _exists(self, name: str) -> bool:
        if self._files is None:
            return Path(self._root, name).is_file()
        info: Any = self._files.get_file_info(f"{self._root}/{name}")
        return bool(info.is_file)

    def _write(self, name: str, content: bytes) -> None:
        if self._files is None:
            path = Path(self._root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            return
        with self._files.open_output_stream(f"{self._root}/{name}", compression=None) as stream:
            stream.write(content)
