"""Data as a training config names it: a prepared folder, or sources that are prepared once per node and kept by what they hold."""

import fcntl
from collections.abc import Sequence
from pathlib import Path

from ocr.dataset.arrow_cache import cache_dir
from ocr.dataset.build import build, signature
from ocr.dataset.config import PrepareConfig
from ocr.dataset.read import Dataset
from ocr.sources.settings import SourceSettings

Data = str | Sequence[SourceSettings]
_SPLITS_TRIED = 10


def open_splits(train: Data, validation: Data | None, validation_ratio: float, max_skipped: float) -> tuple[Dataset, Dataset]:
    """Both splits, of a folder or of sources, prepared where they are new or changed; UserError as by `build` and `Dataset.open`.

    Sources of `validation` all judge, and those of `train` then all train, where they do not say themselves.
    """
    if validation is None:
        folder = train if isinstance(train, str) else _divided(train, validation_ratio, max_skipped)
        return Dataset.open(folder, "train"), Dataset.open(folder, "validation")
    folders = [
        data if isinstance(data, str) else _prepared([_into(split, source) for source in data], validation_ratio, max_skipped)
        for data, split in ((train, "train"), (validation, "validation"))
    ]
    return Dataset.open(folders[0], "train"), Dataset.open(folders[1], "validation")


def open_training(data: Data, max_skipped: float) -> Dataset:
    """The training split alone; sources that do not say all train."""
    folder = data if isinstance(data, str) else _prepared([_into("train", source) for source in data], 0.0, max_skipped)
    return Dataset.open(folder, "train")


def _divided(sources: Sequence[SourceSettings], validation_ratio: float, max_skipped: float) -> Path:
    """The prepared folder; a dozen samples may all fall into one split, and then the next seed of the split is tried."""
    drawn = validation_ratio > 0 and any(source.split == "auto" for source in sources)
    for seed in range(_SPLITS_TRIED if drawn else 1):
        folder = _prepared(sources, validation_ratio, max_skipped, seed)
        if (folder / "train.parquet").is_file() and (folder / "validation.parquet").is_file():
            return folder
    return folder


def _into(split: str, source: SourceSettings) -> SourceSettings:
    return source.model_copy(update={"split": split}) if source.split == "auto" else source


def told(data: Data) -> str:
    """The data in a line, for reports and messages."""
    return data if isinstance(data, str) else ", ".join(f"{source.format}:{getattr(source, 'path', '')}" for source in data)


def _prepared(sources: Sequence[SourceSettings], validation_ratio: float, max_skipped: float, seed: int = 0) -> Path:
    """The folder in LIPI_CACHE of these sources as their files are now; processes of one node wait for one another."""
    split = {"validation_ratio": validation_ratio, "seed": seed}
    values = {"output": "unnamed", "sources": [source.model_dump() for source in sources], "split": split, "max_skipped": max_skipped}
    config = PrepareConfig.model_validate(values)
    folder = cache_dir() / "datasets" / signature(config)[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / "dataset.json").is_file():
            print(build(config.model_copy(update={"output": str(folder)})), flush=True)
    return folder
