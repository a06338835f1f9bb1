"""Data as a training config names it: a prepared folder, or sources prepared once per node.

Prepared sources are kept under a hash of their content.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ocr.dataset.build import Summary, build, in_processes, signature
from ocr.dataset.config import DivisionSettings, PrepareConfig
from ocr.dataset.division import distance, dividing_seed
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.files import cache_dir, locked, read_json, read_object
from ocr.sources.settings import SourceSettings
from ocr.system_errors import reported

Data = str | Sequence[SourceSettings]
_SPLITS_TRIED = 10
_FEW = 1000  # more samples are divided anew only where a split is empty


def open_splits(
    train: Data,
    validation: Data | None,
    validation_ratio: float,
    max_skipped: float,
    division: DivisionSettings = DivisionSettings(),  # noqa: B008  (frozen)
) -> tuple[Dataset, Dataset]:
    """Open both splits of a folder or of sources, preparing new or changed sources.

    Sources of `validation` then all evaluate, and those of `train` all train, unless they say
    otherwise themselves. UserError as by `build` and `Dataset.open`.
    """
    if validation is None:
        folder = (
            train
            if isinstance(train, str)
            else _divided(train, validation_ratio, max_skipped, division)
        )
        if isinstance(folder, Path) and not isinstance(train, str):
            _require_both(folder, train, validation_ratio, division)
        return Dataset.open(folder, "train"), Dataset.open(folder, "validation")
    folders = [
        data
        if isinstance(data, str)
        else _require(
            _prepared([_into(split, source) for source in data], validation_ratio, max_skipped),
            data,
            split,
        )
        for data, split in ((train, "train"), (validation, "validation"))
    ]
    return Dataset.open(folders[0], "train"), Dataset.open(folders[1], "validation")


def _require_both(
    folder: Path,
    train: Sequence[SourceSettings],
    validation_ratio: float,
    division: DivisionSettings,
) -> None:
    """Raise UserError where sources leave one split empty, in the words of a run's config."""
    share, count = _kept(folder)
    if 0 < share < 1:
        return
    given = {source.split for source in train}
    advice = "name other data in data.validation"
    if "auto" not in given:
        why, advice = f"every source has split={given.pop()}", f"{advice}, or change one of them"
    elif validation_ratio == 0:
        why, advice = "data.validation_ratio is 0", f"set it, such as to 0.1, or {advice}"
    elif count == 1:
        why, advice = "it cannot be divided", f"add samples, or {advice}"
    else:
        why = f"by {', '.join(division.by)} all are in one split"
        advice = f"set data.split.by=[text] or [id], or another data.split.seed, or {advice}"
    name = "validation" if share == 0 else "training"
    samples = "1 sample" if count == 1 else f"{count:,} samples"
    raise UserError(
        f"{describe_data(train)}: nothing is left for {name} of {samples}: {why}; {advice}"
    )


def _require(folder: str | Path, data: Data, split: str) -> Path | str:
    """Return the folder; UserError where the sources of one split have nothing for it."""
    if isinstance(folder, Path) and not read_json(folder / "dataset.json")["kept"][split]:
        others = sorted({source.split for source in data if not isinstance(source, str)} - {"auto"})
        raise UserError(
            f"{describe_data(data)}: no sample is for {split}, because its sources have "
            f"split={', '.join(others)}; leave `split` out, or name other data in data.{split}"
        )
    return folder


def open_training(data: Data, max_skipped: float) -> Dataset:
    """Open the training split alone; sources train unless they say otherwise."""
    folder = (
        data
        if isinstance(data, str)
        else _require(
            _prepared([_into("train", source) for source in data], 0.0, max_skipped), data, "train"
        )
    )
    return Dataset.open(folder, "train")


def _divided(
    sources: Sequence[SourceSettings],
    validation_ratio: float,
    max_skipped: float,
    division: DivisionSettings,
) -> Path:
    """Return the prepared folder, divided by the first seed that comes near the ratio.

    A dozen samples may all fall into one split, and so may the samples of two large pages. Of few
    samples, and where a split is empty, ten seeds are tried, and the nearest that leaves no split
    empty is used where none comes near. Samples of one page are divided by their texts, those of
    one text by themselves.
    """
    folder = _prepared(sources, validation_ratio, max_skipped, division)
    if validation_ratio == 0 or all(source.split != "auto" for source in sources):
        return folder
    if _kept(folder)[1] > _FEW and _distance(folder, validation_ratio) < 1.0:
        return folder

    tried = [folder]
    for number in range(1, _SPLITS_TRIED):
        if _distance(tried[-1], validation_ratio) <= validation_ratio / 2:
            break
        other = division.model_copy(update={"seed": division.seed + number})
        tried.append(_prepared(sources, validation_ratio, max_skipped, other, is_again=True))
    best = min(tried, key=lambda each: _distance(each, validation_ratio))
    if _distance(best, validation_ratio) == 1.0:
        other_division = _other_division(sources, folder, validation_ratio, division)
        if other_division:
            return _prepared(sources, validation_ratio, max_skipped, other_division, is_again=True)
    elif best != folder:
        _say(
            f"{describe_data(sources)}: divided again, because the first division was far from "
            f"{validation_ratio:g}: now {_kept(best)[0]:.0%} of the samples are for validation"
        )
    return best


def _other_division(
    sources: Sequence[SourceSettings], folder: Path, ratio: float, division: DivisionSettings
) -> DivisionSettings | None:
    """Return a division that leaves no split empty; None without one, or where `by` was set."""
    if division.by != DivisionSettings().by:
        return None
    kept = read_json(folder / "dataset.json")["kept"]
    data = [Dataset.open(folder, split) for split, count in kept.items() if count]
    for name, words in (("text", "by their texts"), ("id", "one by one")):
        values = [value for part in data for value in (part.texts if name == "text" else part.ids)]
        seed = dividing_seed(name, values, ratio, division.seed)
        if seed is not None:
            easier = "pages" if name == "text" else "texts and pages"
            _say(
                f"{describe_data(sources)}: by {division.by[0]} one split would be empty, so the "
                f"samples are divided {words}; the CER of {easier} that training has not seen "
                "will be higher"
            )
            return division.model_copy(update={"by": (name,), "seed": seed})
    return None


def _say(text: str) -> None:
    print(text, flush=True)


def _distance(prepared: Path, validation_ratio: float) -> float:
    """Return how far a division is from the ratio."""
    return distance(_kept(prepared)[0], validation_ratio)


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
    sources: Sequence[SourceSettings],
    validation_ratio: float,
    max_skipped: float,
    division: DivisionSettings = DivisionSettings(),  # noqa: B008  (frozen)
    is_again: bool = False,
) -> Path:
    """Return the folder in LIPI_CACHE of these sources as their files are now.

    Processes of one node wait for one another. `is_again`: without the report, which was printed.
    """
    values = {
        "output": "unnamed",
        "sources": [source.model_dump() for source in sources],
        "split": {
            "validation_ratio": validation_ratio,
            **division.model_dump(exclude_defaults=True),
        },
        "max_skipped": max_skipped,
    }
    config = PrepareConfig.model_validate(values)
    name = signature(config)[:32]  # which on_leak is not part of
    if division.on_leak != DivisionSettings().on_leak:
        name += f"-{division.on_leak}"
    folder = cache_dir() / "datasets" / name
    with reported(folder, "prepare the data with ray_jobs/prepare.py"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _build_once(folder, config, is_again)
    return folder


def _build_once(folder: Path, config: PrepareConfig, is_again: bool) -> None:
    with locked(folder.with_suffix(".lock")):
        if read_object(folder / "dataset.json") is None:
            shutil.rmtree(folder, ignore_errors=True)  # damaged: in the cache, so made again
            report = _built(config.model_copy(update={"output": str(folder)}))
            if not is_again:
                named = replace(report, output=describe_data(config.sources), empty_split="")
                _say(_in_words_of_a_run(str(named)))


def _built(config: PrepareConfig) -> Summary:
    """Build the data set, and name settings of `split` in errors as a run's config has them."""
    try:
        return build(config, in_processes)
    except UserError as problem:
        raise UserError(_in_words_of_a_run(str(problem))) from None


def _in_words_of_a_run(text: str) -> str:
    """Return a text with the settings of a division as the config of a run has them."""
    text = text.replace("split.validation_ratio", "data.validation_ratio")
    return re.sub(r"(?<!data\.)\bsplit\.(?=\w)", "data.split.", text)
