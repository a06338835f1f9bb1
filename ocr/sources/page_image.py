"""The image file that a page description belongs to."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from ocr.images import (
    FORMATS,
    SUFFIXES,
)
from ocr.sources.files import FileRefused


def find_image(root: Path, beside: str, named: str, stem: str) -> str:
    """Return the page image relative to `root`.

    It is found as the XML names it, from the XML's folder upwards, in any case, or by the XML's own
    stem. FileRefused("missing image") when there is none.
    """
    name = PureWindowsPath(named).as_posix() if "\\" in named else named.removeprefix("file://")
    folders = [PurePosixPath(beside), *PurePosixPath(beside).parents]
    for ending in dict.fromkeys((name, PurePosixPath(name).name)):
        for parent in folders:
            file = _in_any_case(root, parent / ending) if ending else None
            if file:
                return file
    candidates = {f"{start}{suffix}" for start in (stem, stem.split(".")[0]) for suffix in SUFFIXES}
    beside_it = [
        entry.name
        for entry in sorted((root / beside).iterdir())
        if entry.name.lower() in {name.lower() for name in candidates}
    ]
    if len(beside_it) == 1:
        return (PurePosixPath(beside) / beside_it[0]).as_posix()
    raise FileRefused(
        "missing image",
        f"{named or 'no name given'}: neither beside the XML nor up to {root}; formats: "
        f"{', '.join(FORMATS)}",
    )


def _in_any_case(root: Path, path: PurePosixPath) -> str | None:
    """Return `path` below `root` as it is spelt on the disk; None when it does not exist.

    A path that leads upwards stays as it is, to be refused by name.
    """
    if path.is_absolute() or ".." in path.parts:
        return str(path) if (root / path).is_file() else None
    if (root / path).is_file():
        return str(path)
    parent = root / path.parent
    alike = (
        [
            entry.name
            for entry in sorted(parent.iterdir())
            if entry.name.lower() == path.name.lower()
        ]
        if parent.is_dir()
        else []
    )
    return str(path.parent / alike[0]) if alike else None
