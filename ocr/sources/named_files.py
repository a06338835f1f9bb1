"""The one finder of files that a source names: as written, or as another system would write it."""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from ocr.limits import SUFFIXES
from ocr.sources.files import FileRefused

_DRIVE = re.compile(r"^[A-Za-z]:(?=[\\/])")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://|^file:")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio's prefix of uploaded files


def find_named(root: Path, named: str, beside: str = "") -> str | None:
    r"""Return the file below `root` that a source calls `named`, relative to it; None without one.

    Folders are searched from `beside` upwards. A name counts as written, with `\` for `/`, without
    the folders of another machine, percent-decoded, in any case and any Unicode form. FileRefused
    where several files differ only so.
    """
    folders = [PurePosixPath(beside), *PurePosixPath(beside).parents]
    forms = list(dict.fromkeys(_forms(named)))
    for form in forms:
        for folder in folders:
            if is_file(root / folder / form):
                return str(folder / form)
    for ending in dict.fromkeys(ending for form in forms for ending in _endings(form)):
        for folder in folders:
            if found := _alike(root, folder, ending):
                return found
    return None


def find_beside(root: Path, stem: str) -> str | None:
    """Return the image of a text file: `stem` with the ending of an image, relative to `root`.

    FileRefused where there are several.
    """
    found = images_beside(root, stem)
    if len(found) > 1:
        listed = ", ".join(PurePosixPath(name).name for name in found[:4])
        raise FileRefused("several files of that name", f"{stem}: {listed}")
    return found[0] if found else None


def images_beside(root: Path, stem: str) -> list[str]:
    """Return the images that `stem` may mean, best: as written, alike, or `x.WORD.png`."""
    for ending in (ending for suffix in SUFFIXES for ending in (suffix, suffix.upper())):
        if is_file(root / (stem + ending)):
            return [stem + ending]
    parent, name = PurePosixPath(stem).parent, _folded(PurePosixPath(stem).name)
    entries = _entries(root / parent)
    whole = [entry for suffix in SUFFIXES for entry in entries.get(name + suffix, ())]
    return [str(parent / entry) for entry in whole or _variants(entries, name)]


def _variants(entries: Mapping[str, list[str]], name: str) -> Iterator[str]:
    """Yield the images `x.WORD.png` of a folder, such as x.bin.png and x.nrm.png."""
    for folded, spelt in entries.items():
        if (
            folded.startswith(f"{name}.")
            and folded.endswith(SUFFIXES)
            and folded.removeprefix(f"{name}.").count(".") == 1
        ):
            yield from spelt


def require_named(root: Path, named: str, beside: str = "") -> str:
    """Return what `find_named` finds; FileRefused("missing image") where there is none.

    A name that leads out of `root`, or to a folder or pipe, stays as it is, to be refused by that.
    """
    found = find_named(root, named, beside) if named.strip() else None
    if found is None and named.strip() and _is_other(root / beside, named):
        return str(PurePosixPath(beside) / named)
    if found is None:
        raise FileRefused("missing image", f"{(root / beside)}: no file {named[:200]!r}")
    return found


def is_file(path: Path) -> bool:
    """Tell whether a path is a file; no name is too long or too odd to be asked for."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_other(folder: Path, named: str) -> bool:
    """Tell whether a name leads out of its folder, or to something else than a file."""
    return ".." in PurePosixPath(named).parts or os.path.lexists(folder / named)


def _forms(named: str) -> Iterator[str]:
    """Yield a name as written, and as a path of this system, also percent-decoded."""
    yield named
    slashed = _DRIVE.sub("", named).replace("\\", "/") if "\\" in named else named
    yield slashed
    if _SCHEME.match(slashed) or "?" in slashed:
        try:
            parts = urlsplit(slashed)
        except ValueError:
            return
        yield from parse_qs(parts.query).get("d", [])  # Label Studio's local files
        slashed = _DRIVE.sub("", parts.path.lstrip("/"))
        yield slashed
    yield unquote(slashed)


def _endings(form: str) -> Iterator[str]:
    """Yield a path without its first folders, the longest first, and without an upload's prefix."""
    parts = [part for part in PurePosixPath(form).parts if part not in ("/", "..", ".")]
    for start in range(len(parts)):
        yield "/".join(parts[start:])
    if parts and _UPLOAD.match(parts[-1]):
        yield _UPLOAD.sub("", parts[-1])


def _alike(root: Path, folder: PurePosixPath, form: str) -> str | None:
    """Return the path below a folder that differs by case or Unicode form alone."""
    if ".." in PurePosixPath(form).parts or not form:
        return None
    here = folder
    for part in PurePosixPath(form).parts:
        alike = _entries(root / here).get(_folded(part), [])
        found = _only([part] if part in alike else alike, here, str(here / part))
        if found is None:
            return None
        here = PurePosixPath(found)
    return str(here) if is_file(root / here) else None


def _only(found: list[str], parent: PurePosixPath, named: str) -> str | None:
    if len(found) > 1:
        raise FileRefused("several files of that name", f"{named}: {', '.join(sorted(found)[:4])}")
    return str(parent / found[0]) if found else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _entries(folder: Path) -> Mapping[str, list[str]]:
    """Return the names in a folder under what they are without case and Unicode form."""
    try:
        return _listed(str(folder), os.stat(folder).st_mtime_ns)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=256)
def _listed(folder: str, _changed: int) -> Mapping[str, list[str]]:
    entries: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        entries.setdefault(_folded(name), []).append(name)
    return entries


def forget() -> None:
    """Forget which files the folders hold."""
    _listed.cache_clear()
