"""Files that a source names: read only from inside its folder, only ordinary ones, only up to a size."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ocr.errors import UserError

MAX_FILE_BYTES = 512_000_000


class FileRefused(Exception):
    """A named file that cannot or must not be read; `reason` is a short countable name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_inside(root: Path, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of `root/name`; FileRefused when it is missing, leads out of `root` (also by a link), or is a pipe, a device or too large."""
    path = root / name
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise FileRefused("path outside the images folder", f"{name} leaves {root}")
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise FileRefused("not an ordinary file", f"{path}: a folder, pipe or device")
        if found.st_size > max_bytes:
            raise FileRefused("file too large", f"{path}: {found.st_size:,} bytes; the limit is {max_bytes:,}")
        return path.read_bytes()
    except OSError as problem:
        raise FileRefused("missing image", f"{path}: {problem.strerror or problem}") from None
    except (ValueError, RuntimeError) as problem:  # a NUL in the path; a loop of links
        raise FileRefused("missing image", f"{path!r}: {problem}") from None


def folder(path: str, setting: str, holds: str) -> Path:
    """The folder that a setting names; UserError when there is none."""
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; `{setting}` names {holds}")
    return Path(path)


def names_below(root: Path, endings: Iterable[str]) -> list[str]:
    """Paths below `root`, relative and sorted, of the files with one of the endings, whatever their case; links to folders are not followed."""
    lowered = tuple(ending.lower() for ending in endings)
    return sorted(_walk(root, lowered))


def _walk(root: Path, endings: tuple[str, ...]) -> Iterator[str]:
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(endings) and not name.startswith("."):
                yield (Path(parent) / name).relative_to(root).as_posix()
