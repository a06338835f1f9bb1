"""Files that a source names: read only inside its folder, only ordinary ones, only up to a size."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ocr.errors import UserError
from ocr.limits import SUFFIXES
from ocr.sample import Sample, Skip
from ocr.sources.unit import Unit, in_rows

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
MAX_FILE_BYTES = 512_000_000
SHIPPED_TEXTS = Path(__file__).parents[1] / "assets" / "texts"
UNREAD = "/unread"  # the name of a unit: the files of a folder that nothing names
NOT_READ = "not read: "
_SHIPPED = "shipped:"


def located(name: str) -> Path:
    """Return the path that a setting names; `shipped:NAME` is a file of ocr/assets/texts."""
    return SHIPPED_TEXTS / name.removeprefix(_SHIPPED) if name.startswith(_SHIPPED) else Path(name)


class FileRefused(Exception):
    """A named file that cannot or must not be read; `reason` is a short countable name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_inside(root: Path, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of `root/name`.

    FileRefused when it is missing, leads out of `root` (also by a link), is a pipe or a device, or
    is too large.
    """
    path = root / name
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            raise FileRefused("path outside the images folder", f"{name} leaves {root}")
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused("not an ordinary file", f"{path}: a folder, pipe or device")
        if status.st_size > max_bytes:
            raise FileRefused(
                "file too large", f"{path}: {status.st_size:,} bytes; the limit is {max_bytes:,}"
            )
        return path.read_bytes()
    except OSError as problem:
        reason = "missing image" if problem.errno in _MISSING else "unreadable file"
        raise FileRefused(reason, f"{path}: {problem.strerror or problem}") from None
    except (ValueError, RuntimeError) as problem:  # a NUL in the path; a loop of links
        raise FileRefused("missing image", f"{path!r}: {problem}") from None


def folder(path: str, setting: str, holds: str) -> Path:
    """Return the folder that a setting names; UserError when there is none."""
    if not os.path.isdir(path):  # of Path's own, a name that is too long is an error
        raise UserError(f"{path}: no such folder; `{setting}` names {holds}")
    return Path(path)


def plan_files(path: str, ending: str, holds: str) -> list[Unit]:
    """Plan the files below a folder whose names end so, in the order of their paths.

    UserError, saying what the folder `holds`, when there is none.
    """
    _listed.cache_clear()  # the folder may have changed since
    names = _listed(str(folder(path, "path", holds)), ending)
    if not names:
        raise UserError(f"{path}: no file whose name ends in {ending}; `path` names {holds}")
    return [*in_rows("", len(names)), Unit(UNREAD)]


def read_files(
    path: str, ending: str, unit: Unit, make: Callable[[str], Sample | Skip]
) -> Iterator[Sample | Skip]:
    """Yield the result of `make` for each file of the unit, by its path relative to the folder.

    A refused file gives a Skip.
    """
    for name in _listed(path, ending)[unit.start : unit.stop]:
        try:
            yield make(name)
        except FileRefused as refused:
            yield Skip(f"{Path(path) / name}", refused.reason, refused.detail)


@lru_cache(maxsize=4)
def _listed(path: str, ending: str) -> list[str]:
    return names_below(Path(path), [ending])


def unread(root: Path, used: Iterable[str], read: tuple[str, ...]) -> Iterator[Skip]:
    """Yield a Skip for every file below a folder that is neither `used` nor of an ending `read`."""
    known = {PurePosixPath(os.path.normpath(name)).as_posix() for name in used}
    closed = list[OSError]()
    for name in sorted(_walk(root, ("",), closed.append)):
        if name not in known and not name.lower().endswith(read):
            ending = PurePosixPath(name).suffix.lower()
            kind = "image" if ending in SUFFIXES else "file"
            yield Skip(f"{root / name}", f"{NOT_READ}{kind} {ending}".rstrip(), "nothing names it")
    for problem in closed:
        yield Skip(str(problem.filename), "unreadable folder", problem.strerror or str(problem))


def names_below(root: Path, endings: Iterable[str]) -> list[str]:
    """Return the sorted relative paths below `root` of files with one of the endings, in any case.

    Links to folders are not followed.
    """
    lowered = tuple(ending.lower() for ending in endings)
    return sorted(_walk(root, lowered))


def _walk(
    root: Path, endings: tuple[str, ...], onerror: Callable[[OSError], None] | None = None
) -> Iterator[str]:
    for parent, folders, files in os.walk(root, onerror=onerror):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(endings) and not name.startswith("."):
                yield (Path(parent) / name).relative_to(root).as_posix()
