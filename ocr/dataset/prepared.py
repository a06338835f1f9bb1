"""Data as a training config names it: a prepared folder, or sources prepared once per node.

Prepared sources are kept under a hash of their content.
"""

from collections.abc import Sequence
from pathlib import Path

from ocr.dataset.build import build, in_processes, signature
from ocr.dataset.config import PrepareConfig
from ocr.dataset.read import Dataset
from ocr.files import cache_dir, locked, read_json
from ocr.sources.settings import SourceSettings

Data = str | Sequence[SourceSettings]
_SPLITS_TRIED, _FEW = 10, 1000  # most seeds tried; most samples for which more than one is tried


def open_splits(
    train: Data, validation: Data | None, validation_ratio: float, max_skipped: float
) -> tuple[Dataset, Dataset]:
    """Open both splits of a folder or of sources, preparing new or changed sources.

    Sources of `validation` then all evaluate, and those of `train` all train, unless they say
    otherwise themselves. UserError as by `build` and `Dataset.open`.
    """
    if validation is None:
        folder = train if isinstance(train, str) else _divided(train, validation_ratio, max_skipped)
        return Dataset.open(folder, "train"), Dataset.open(folder, "validation")
    folders = [
        data
        if isinstance(data, str)
        else _prepared([_into(split, source) for source in data], validation_ratio, max_skipped)
        for data, split in ((train, "train"), (validation, "validation"))
    ]
    return Dataset.open(folders[0], "train"), Dataset.open(folders[1], "validation")


def open_training(data: Data, max_skipped: float) -> Dataset:
    """Open the training split alone; sources train unless they say otherwise."""
    folder = (
        data
        if isinstance(data, str)
        else _prepared([_into("train", source) for source in data], 0.0, max_skipped)
    )
    return Dataset.open(folder, "train")


def _divided(
    sources: Sequence[SourceSettings], validation_ratio: float, max_skipped: float
) -> Path:
    """Return the prepared folder, divided by the first seed that comes near the ratio.

    A dozen samples may all fall into one split. Of few samples ten seeds are tried, and the nearest
    is used where none comes near.
    """
    folder = _prepared(sources, validation_ratio, max_skipped)
    if (
        validation_ratio == 0
        or all(source.split != "auto" for source in sources)
        or _kept(folder)[1] > _FEW
    ):
        return folder

    def distance(prepared: Path) -> float:
        return abs(_kept(prepared)[0] - validation_ratio)

    tried = [folder]
    while distance(tried[-1]) > validation_ratio / 2 and len(tried) < _SPLITS_TRIED:
        tried.append(_prepared(sources, validation_ratio, max_skipped, seed=len(tried)))
    best = min(tried, key=distance)
    if best != folder:
        share, count = _kept(best)
        print(
            f"{best}: divided again, {round(share * count)} of {count} samples for "
            f"validation, because the first division was far from {validation_ratio:g}",
            flush=True,
        )
    return best


def _kept(folder: Path) -> tuple[float, int]:
    """Return the share of validation samples, and the number of all samples."""
    kept = read_json(folder / "dataset.json")["kept"]
    count = kept["train"] + kept["validation"]
    return kept["validation"] / count, count


def _into(split: str, source: SourceSettings) -> SourceSettings:
    return source.model_copy(update={"split": split}) if source.split == "auto" else source


def describe_data(data: Data) -> str:
    """Return the data in one line, for reports and messages."""
    return (
        data
        if isinstance(data, str)
        else ", ".join(f"{source.format}:{getattr(source, 'path', '')}" for source in data)
    )


def _prepared(
    sources: Sequence[SourceSettings], validation_ratio: float, max_skipped: float, seed: int = 0
) -> Path:
    """Return the folder in LIPI_CACHE of these sources as their files are now.

    Processes of one node wait for one another.
    """
    split = {"validation_ratio": validation_ratio, "seed": seed}
    values = {
        "output": "unnamed",
        "sources": [source.model_dump() for source in sources],
        "split": split,
        "max_skipped": max_skipped,
    }
    config = PrepareConfig.model_validate(values)
    folder = cache_dir() / "datasets" / signature(config)[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not (folder / "dataset.json").is_file():
            report = build(config.model_copy(update={"output": str(folder)}), in_processes)
            if seed == 0:
                print(report, flush=True)
    return folder
