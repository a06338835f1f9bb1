"""PaddleOCR recognition label files: `path<TAB>text` a line, images relative to a root folder."""

from collections.abc import Iterator
from pathlib import Path

from ocr.errors import UserError
from ocr.sample import Sample, Skip
from ocr.sources.settings import PaddleSettings


def read_paddle(settings: PaddleSettings) -> Iterator[Sample | Skip]:
    """A Sample or a Skip for every line that is not blank; UserError when the label file cannot be read."""
    labels = Path(settings.path)
    root = Path(settings.images) if settings.images is not None else labels.parent
    try:
        lines = labels.read_bytes().split(b"\n")
    except OSError as problem:
        raise UserError(f"{labels}: {problem.strerror}; `path` names a PaddleOCR label file, one `path<TAB>text` a line") from None
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; `images` names the one that the paths in {labels} start from")
    for number, line in enumerate(lines, start=1):
        line = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r")
        if line.strip():
            yield _read_line(line, f"{labels}:{number}", root, settings)


def _read_line(line: bytes, where: str, root: Path, settings: PaddleSettings) -> Sample | Skip:
    try:
        path, delimiter, text = line.decode("utf-8").partition(settings.delimiter)
    except UnicodeDecodeError as problem:
        return Skip(where, "label not UTF-8", str(problem))
    if not delimiter:
        return Skip(where, "malformed label line", f"no {settings.delimiter!r} between path and text in {path[:80]!r}")
    if not text.strip():
        return Skip(where, "empty text", path)
    image = root / path.strip()
    try:
        if not image.resolve().is_relative_to(root.resolve()):
            return Skip(where, "path outside the images folder", f"{path} leaves {root}")
        data = image.read_bytes()
    except (OSError, ValueError, RuntimeError) as problem:  # ValueError: a NUL in the path; RuntimeError: a loop of links
        return Skip(where, "missing image", f"{image}: {problem}")
    return Sample(f"{Path(settings.path).name}#{path.strip()}", data, text, settings.level, (("file", path.strip()),), f"paddle:{settings.path}")
