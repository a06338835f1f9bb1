"""A row of a Hugging Face data set → its text and encoded image.

An image that a row only names is read only from inside the data set.
"""

import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr.errors import UserError, first_line
from ocr.sources.files import read_inside
from ocr.sources.named_files import require_named
from ocr.sources.settings import HuggingFaceSettings


class Unusable(Exception):
    """A row that is no sample, with the reason and detail of its Skip."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of a data set's columns."""

    text: str
    image: str | None  # None: inside the messages
    id: str | None
    klass: str | None
    groups: tuple[tuple[str, str], ...]

    def names(self) -> list[str]:
        """Return the distinct names."""
        single = (self.text, self.image, self.id, self.klass)
        return list(
            dict.fromkeys(
                [name for name in single if name is not None] + [name for _, name in self.groups]
            )
        )


def text_of(value: Any) -> str:
    """Return a text, or the assistant's part of a conversation; Unusable says why there is none."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        texts = [text for turn in value for text in _assistant_texts(turn) if text is not None]
        value = "\n".join(texts) if all(isinstance(text, str) for text in texts) else texts
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Unusable("empty text")
    if not isinstance(value, str):
        raise Unusable(
            "text is no string", f"expected a text, got {type(value).__name__} {str(value)[:80]}"
        )
    return value


def _assistant_texts(turn: dict[str, Any]) -> list[Any]:
    """Return the assistant's texts in {"user", "assistant"} or in {"role", "content"}."""
    if "role" not in turn:
        return [turn.get("assistant")]
    if turn["role"] != "assistant":
        return []
    content = turn.get("content")
    return _parts(content, "text") if isinstance(content, list) else [content]


def _parts(content: list[Any], kind: str) -> list[Any]:
    return [
        part.get(kind) for part in content if isinstance(part, dict) and part.get("type") == kind
    ]


def image_of(settings: HuggingFaceSettings, row: dict[str, Any], columns: Columns) -> bytes:
    """Return the encoded image of a row; Unusable or FileRefused says why there is none."""
    if columns.image:
        value = row[columns.image]
    else:
        contents = [turn.get("content") for turn in row[columns.text]]
        value = [
            image
            for content in contents
            if isinstance(content, list)
            for image in _parts(content, "image")
        ]
    if isinstance(value, list):
        if len(value) > 1:
            raise Unusable("more than one image", f"{len(value)} images")
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return _read_file(settings, value)
    if not isinstance(value, bytes) or not value:
        raise Unusable(
            "missing image",
            "" if value is None else f"expected an image, got {type(value).__name__}",
        )
    return value


def _read_file(settings: HuggingFaceSettings, path: str) -> bytes:
    """Read an image named by its path.

    It is in the local folder, in the hub client's cache on this disk, or in the hub's data set.
    """
    import datasets
    import huggingface_hub

    local = Path(settings.path)
    if os.path.exists(local):
        root = local if local.is_dir() else local.parent
        return read_inside(root, require_named(root, path))
    if "://" not in path:
        kept = [
            Path(huggingface_hub.constants.HF_HUB_CACHE),
            Path(datasets.config.DOWNLOADED_DATASETS_PATH),
        ]
        if Path(path).is_absolute():
            return read_inside(
                next((root for root in kept if Path(path).is_relative_to(root)), kept[0]), path
            )
        return read_inside(_whole(settings.path), path)
    if ".." in path or not re.fullmatch(
        rf"(zip://[^:]+::)?hf://datasets/{re.escape(settings.path)}@[^:]+", path
    ):
        raise Unusable("path outside the images folder", f"{path} is not of {settings.path}")
    try:
        with datasets.utils.file_utils.xopen(path, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError as problem:
        raise Unusable("missing image", f"{path}: {problem}") from None


@functools.lru_cache(maxsize=8)
def _whole(name: str) -> Path:
    """Download a hub data set with every file, once, for rows that name image files in it."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except OSError as problem:  # errors of the hub's client derive from it
        raise UserError(
            f"{name}: its rows name image files, and the data set cannot be downloaded: "
            f"{first_line(problem)}"
        ) from None
