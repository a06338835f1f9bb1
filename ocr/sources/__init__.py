"""Sources of samples: planned as fixed units of work, each of which yields Samples or Skips.

A reader is a module with `plan(settings) -> list[Unit]` and `read(settings, unit) ->
Iterator[Sample | Skip]`; later code does not know the format. A reader whose settings do not name
all its files has `files(settings) -> Iterator[Path]` too.
"""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr.sample import Sample, Skip
from ocr.sources import named_files
from ocr.sources.archives import as_named, unzipped
from ocr.sources.files import located
from ocr.sources.unit import Unit

if TYPE_CHECKING:
    from ocr.sources.settings import SourceSettings

_HOLDS_FILES = ("path", "images", "texts", "fonts", "dictionary", "character_dict_path")
_READERS = {
    "page": "ocr.sources.page_xml",
    "alto": "ocr.sources.alto",
    "paddle": "ocr.sources.paddle",
    "table": "ocr.sources.table",
    "label_studio": "ocr.sources.label_studio",
    "corrections": "ocr.sources.corrections",
    "huggingface": "ocr.sources.huggingface",
    "pairs": "ocr.sources.pairs",
    "synthetic": "ocr.rendering.synthetic",
}


def plan(settings: "SourceSettings") -> list[Unit]:
    """Return the units of a source in a fixed order.

    UserError when the source itself is wrong (a missing file, column or font).
    """
    named_files.forget()  # the folders may have changed since
    return list(_reader(settings).plan(unzipped(settings)))


def read(settings: "SourceSettings", unit: Unit) -> Iterator[Sample | Skip]:
    """Yield the samples and skips of one unit, in a fixed order, whatever was read before it."""
    folders = unzipped(settings)
    items = _reader(settings).read(folders, unit)
    yield from items if folders is settings else as_named(items, folders, settings)


def files_of(settings: "SourceSettings") -> Iterator[Path]:
    """Yield every file on this disk that the samples depend on, folders with all their files."""
    for path in paths_of(settings):
        yield from _files_at(path)
    yield from getattr(_reader(settings), "files", lambda _: iter(()))(unzipped(settings))


def paths_of(settings: "SourceSettings") -> Iterator[Path]:
    """Yield the existing files and folders that a source's settings name.

    A font family or a hub name is not a path that exists.
    """
    for setting in _HOLDS_FILES:
        value = getattr(settings, setting, None)
        yield from (
            located(path)
            for path in ([value] if isinstance(value, str) else value or ())
            if _exists(located(path))
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return False


def _files_at(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for parent, _, names in os.walk(path):
        yield from (Path(parent) / name for name in names)


def _reader(settings: "SourceSettings") -> Any:
    return importlib.import_module(_READERS[settings.format])
