"""Sources of samples: a source is planned as fixed units of work, and each unit yields Samples, or Skips that say why there is none.

A reader is a module with `plan(settings) -> list[Unit]` and `read(settings, unit) -> Iterator[Sample | Skip]`; nothing after it knows the format.
One whose settings do not name all its files has `files(settings) -> Iterator[Path]` too.
"""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr.sample import Sample, Skip
from ocr.sources.unit import Unit

if TYPE_CHECKING:
    from ocr.sources.settings import SourceSettings

_HOLDS_FILES = ("path", "images", "texts", "fonts", "dictionary", "character_dict_path")
_READERS = {
    "page": "ocr.sources.page_xml",
    "alto": "ocr.sources.alto",
    "paddle": "ocr.sources.paddle",
    "corrections": "ocr.sources.corrections",
    "huggingface": "ocr.sources.huggingface",
    "pairs": "ocr.sources.pairs",
    "synthetic": "ocr.rendering.synthetic",
}


def plan(settings: "SourceSettings") -> list[Unit]:
    """The units of a source in a fixed order; UserError when the source itself is wrong (a missing file, column or font)."""
    return list(_reader(settings).plan(settings))


def read(settings: "SourceSettings", unit: Unit) -> Iterator[Sample | Skip]:
    """What one unit holds, in a fixed order, whatever was read before it."""
    yield from _reader(settings).read(settings, unit)


def files_of(settings: "SourceSettings") -> Iterator[Path]:
    """Every file on this disk that the source's samples depend on: what its settings name, folders with all they hold."""
    for path in paths_of(settings):
        yield from _files_at(path)
    yield from getattr(_reader(settings), "files", lambda _: iter(()))(settings)


def paths_of(settings: "SourceSettings") -> Iterator[Path]:
    """The files and folders that a source's settings name; a font family or a hub name is a path that is not there."""
    for setting in _HOLDS_FILES:
        value = getattr(settings, setting, None)
        yield from (
            Path(path)
            for path in ([value] if isinstance(value, str) else value or ())
            if Path(path).exists()
        )


def _files_at(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for parent, _, names in os.walk(path):
        yield from (Path(parent) / name for name in names)


def _reader(settings: "SourceSettings") -> Any:
    return importlib.import_module(_READERS[settings.format])
