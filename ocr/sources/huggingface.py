"""Hugging Face data sets: rows of the hub or of a local folder become samples.

The encoded images stay as they are. No code of a data set is executed, and an image that a row only
names is read only from inside the data set.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr.errors import UserError
from ocr.sample import Sample, Skip
from ocr.sources.files import UNREAD, FileRefused, unread
from ocr.sources.huggingface_rows import Columns, Unusable, image_of, text_of
from ocr.sources.huggingface_splits import METADATA, is_imagefolder, load, require_known
from ocr.sources.settings import HuggingFaceSettings
from ocr.sources.unit import Unit, in_rows

_ROWS_AT_ONCE = 16
# FineVision's and conversations' names, where the setting keeps its default
_OTHER_NAMES = {
    "image": ("images",),
    "text": ("texts", "messages"),
}
_FOR_VALIDATION = ("validation", "valid", "val", "dev", "test")


@dataclass(frozen=True, slots=True)
class _Split:
    """An opened split.

    `kept` are the numbers of the rows that the settings choose, None when rows come as a stream.
    """

    data: Any
    features: Any
    columns: Columns
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
    return [*units, Unit(UNREAD)] if is_imagefolder(Path(settings.path)) else units


def read(settings: HuggingFaceSettings, unit: Unit) -> Iterator[Sample | Skip]:
    """Yield a Sample or a Skip for every row that dataset_classes and samples_per_class keep."""
    if unit.name == UNREAD:
        used = (str(name) for split in load(settings).values() for name in split[:]["image"])
        yield from unread(Path(settings.path), used, METADATA)
        return
    split = _open(settings.model_dump_json())[unit.name]
    for number, row in _rows(settings, split, unit):
        columns = split.columns
        id = f"{Path(settings.path).name}:{unit.name}#{row[columns.id] if columns.id else number}"
        group = tuple(
            (name, str(row[column])) for name, column in columns.groups if row[column] is not None
        )
        try:
            text, image = text_of(row[columns.text]), image_of(settings, row, columns)
            yield Sample(id, image, text, settings.level, group, f"huggingface:{settings.path}")
        except (Unusable, FileRefused) as problem:
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
    # a stream's classes are known only from its schema
    for name in settings.dataset_classes if classes or not settings.streaming else ():
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


def _columns(settings: HuggingFaceSettings, known: list[str], data: Any) -> Columns:
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
    return Columns(
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
