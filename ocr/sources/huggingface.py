"""Hugging Face data sets: rows of the hub or of a local folder become samples.

The encoded images stay as they are. No code of a data set is executed, and an image that a row only
names is read only from inside the data set.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr.errors import UserError, first_line
from ocr.sample import Sample, Skip
from ocr.sources.files import FileRefused, read_inside
from ocr.sources.huggingface_splits import load, require_known
from ocr.sources.settings import HuggingFaceSettings
from ocr.sources.unit import Unit, in_rows

_ROWS_AT_ONCE = 16
_OTHER_NAMES = {
    "image": ("images",),
    "text": ("texts", "messages"),
}  # FineVision's and conversations' names, where the setting keeps its default
_FOR_VALIDATION = ("validation", "valid", "val", "dev", "test")


class _Unusable(Exception):
    """A row that is no sample, with the reason and detail of its Skip."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class _Columns:
    text: str
    image: str | None  # None: inside the messages
    id: str | None
    klass: str | None
    groups: tuple[tuple[str, str], ...]

    def names(self) -> list[str]:
        single = (self.text, self.image, self.id, self.klass)
        return list(
            dict.fromkeys(
                [name for name in single if name is not None] + [name for _, name in self.groups]
            )
        )


@dataclass(frozen=True, slots=True)
class _Split:
    """An opened split.

    `kept` are the numbers of the rows that the settings choose, None when rows come as a stream.
    """

    data: Any
    features: Any
    columns: _Columns
    kept: Sequence[int] | None
    class_labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def plan(settings: HuggingFaceSettings) -> list[Unit]:
    """Plan units of 1,000 rows, split by split; a shard each when streaming.

    UserError where the data set, split, column or class does not exist.
    """
    _open.cache_clear()  # the data set may have changed since
    splits, units = _open(settings.model_dump_json()), []
    for name, split in splits.items():
        goes_to = None if settings.dataset_split is not None else _goes_to(name, len(splits))
        if split.kept is None:
            units += [
                Unit(name, shard, shard + 1, goes_to) for shard in range(split.data.num_shards)
            ]
        else:
            units += in_rows(name, len(split.kept), goes_to)
    return units


def read(settings: HuggingFaceSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every row that dataset_classes and samples_per_class keep."""
    split = _open(settings.model_dump_json())[unit.name]
    for number, row in _rows(settings, split, unit):
        columns = split.columns
        id = f"{Path(settings.path).name}:{unit.name}#{row[columns.id] if columns.id else number}"
        group = tuple(
            (name, str(row[column])) for name, column in columns.groups if row[column] is not None
        )
        try:
            text, image = _text(row[columns.text]), _image(settings, row, columns)
            yield Sample(id, image, text, settings.level, group, f"huggingface:{settings.path}")
        except (_Unusable, FileRefused) as problem:
            yield Skip(f"{settings.path}:{unit.name}#{number}", problem.reason, problem.detail)


def _goes_to(split: str, splits: int) -> str | None:
    if split in _FOR_VALIDATION:
        return "validation"
    return "train" if split == "train" and splits > 1 else None


def _rows(
    settings: HuggingFaceSettings, split: _Split, unit: Unit
) -> Iterator[tuple[str, dict[str, Any]]]:
    if split.kept is not None:
        for start in range(unit.start, unit.stop, _ROWS_AT_ONCE):
            numbers = list(split.kept[start : min(start + _ROWS_AT_ONCE, unit.stop)])
            for number, row in zip(numbers, split.data[numbers].to_pylist(), strict=True):
                yield str(number), split.features.decode_example(row)
        return
    shard, klass = (
        split.data.shard(num_shards=split.data.num_shards, index=unit.start),
        split.columns.klass,
    )
    try:
        for number, row in enumerate(shard):
            if (
                not settings.dataset_classes
                or _class_name(split.class_labels, row[klass]) in settings.dataset_classes
            ):
                yield f"{unit.start}-{number}", row
    # a damaged file, or a file_name that leaves the folder; lost connections are other errors
    except ValueError as problem:
        raise UserError(
            f"{settings.path}: shard {unit.start} of {unit.name!r} cannot be read: {problem}"
        ) from None


def _text(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        texts = [text for turn in value for text in _assistant_texts(turn) if text is not None]
        value = "\n".join(texts) if all(isinstance(text, str) for text in texts) else texts
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _Unusable("empty text")
    if not isinstance(value, str):
        raise _Unusable(
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


def _image(settings: HuggingFaceSettings, row: dict[str, Any], columns: _Columns) -> bytes:
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
            raise _Unusable("more than one image", f"{len(value)} images")
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return _read_file(settings, value)
    if not isinstance(value, bytes) or not value:
        raise _Unusable(
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
    if local.exists():
        return read_inside(local if local.is_dir() else local.parent, path)
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
        raise _Unusable("path outside the images folder", f"{path} is not of {settings.path}")
    try:
        with datasets.utils.file_utils.xopen(path, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError as problem:
        raise _Unusable("missing image", f"{path}: {problem}") from None


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


@functools.lru_cache(maxsize=8)
def _open(settings_json: str) -> dict[str, _Split]:
    settings = HuggingFaceSettings.model_validate_json(settings_json)
    loaded = load(settings)
    if settings.dataset_split is not None:
        require_known(
            settings.dataset_split, list(loaded), f"{settings.path}: dataset_split: no split"
        )
        loaded = {settings.dataset_split: loaded[settings.dataset_split]}
    splits = {name: _prepared(settings, data) for name, data in loaded.items()}
    classes = list(dict.fromkeys(name for split in splits.values() for name in split.classes))
    for name in (
        settings.dataset_classes if classes or not settings.streaming else ()
    ):  # a stream's classes are known only from its schema
        require_known(name, classes, f"{settings.path}: dataset_classes: no class")
    return splits


def _prepared(settings: HuggingFaceSettings, data: Any) -> _Split:
    """Return the needed columns, images undecoded, and the rows that are kept."""
    import datasets

    streamed = isinstance(data, datasets.IterableDataset)
    columns = _columns(settings, data.column_names or list(next(iter(data), {})), data)
    data = data.select_columns(columns.names())
    features = (
        datasets.Features({name: _undecoded(data.features[name]) for name in columns.names()})
        if data.features
        else None
    )
    named = (
        tuple(getattr(features[columns.klass], "names", ())) if features and columns.klass else ()
    )
    if streamed:
        return _Split(
            data.cast(features) if features else data, features, columns, None, named, named
        )
    if columns.klass is None:
        return _Split(data.with_format("arrow"), features, columns, range(len(data)))
    classes = [_class_name(named, value) for value in _values(data, columns.klass)]
    known = tuple(dict.fromkeys([*named, *(name for name in classes if name is not None)]))
    return _Split(
        data.with_format("arrow"), features, columns, _kept(settings, classes), named, known
    )


def _undecoded(feature: Any) -> Any:
    """Return the same feature with its images as {"bytes", "path"}, at any depth."""
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, dict):
        return {name: _undecoded(inner) for name, inner in feature.items()}
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        return type(feature)(_undecoded(feature.feature))
    return feature


def _columns(settings: HuggingFaceSettings, known: list[str], data: Any) -> _Columns:
    def column(setting: str, wanted: str) -> str:
        name = next(
            (name for name in (wanted, *_OTHER_NAMES.get(wanted, ())) if name in known), wanted
        )
        require_known(name, known, f"{settings.path}: {setting}: no column")
        return name

    text = column("text_column", settings.text_column)
    image_is_inside = (
        settings.image_column == "image"
        and not {"image", "images"} & set(known)
        and _comes_in_parts((data.features or {}).get(text))
    )
    chosen_by_class = bool(settings.dataset_classes) or settings.samples_per_class != "all"
    return _Columns(
        text,
        None if image_is_inside else column("image_column", settings.image_column),
        "id"
        if not settings.streaming and "id" in known and _are_unique_texts(_values(data, "id"))
        else None,
        column("class_column", settings.class_column) if chosen_by_class else None,
        tuple(
            (name, column(f"group_columns.{name}", wanted))
            for name, wanted in settings.group_columns.items()
        ),
    )


def _comes_in_parts(feature: Any) -> bool:
    """Return whether this is a conversation whose contents may hold images."""
    import datasets

    turn = getattr(feature, "feature", None)
    return isinstance(turn, datasets.Json) or (
        isinstance(turn, dict)
        and not isinstance(turn.get("content", datasets.Value("string")), datasets.Value)
    )


def _kept(settings: HuggingFaceSettings, classes: Sequence[str | None]) -> list[int]:
    """Return the row numbers of dataset_classes, the first samples_per_class of each class."""
    seen: Counter[str | None] = Counter()
    kept = []
    for number, name in enumerate(classes):
        wanted = not settings.dataset_classes or name in settings.dataset_classes
        if wanted and (
            settings.samples_per_class == "all" or seen[name] < settings.samples_per_class
        ):
            seen[name] += 1
            kept.append(number)
    return kept


def _class_name(named: Sequence[str], value: Any) -> str | None:
    """Return a ClassLabel's number by its name (-1 is none), anything else as text."""
    if value is None or (named and value < 0):
        return None
    return named[value] if named else str(value)


def _values(data: Any, column: str) -> list[Any]:
    return list(data.select_columns([column])[:][column])


def _are_unique_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) and value for value in values) and len(set(values)) == len(
        values
    )
