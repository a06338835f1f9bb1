"""The descriptions of a finished data set: dataset.json, the card, and the table at the end."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ocr.dataset.config import PrepareConfig
from ocr.dataset.merge import Decisions, Table
from ocr.dataset.write import SPLITS, Tally, described_pairs
from ocr.linting import KINDS
from ocr.settings import resolved
from ocr.templates import environment
from ocr.text import describe_character

_PERCENTILES = (0, 50, 90, 99, 100)


def described(
    config: PrepareConfig, tally: Tally, table: Table, decisions: Decisions
) -> dict[str, Any]:
    """Return the value of dataset.json, a function of the sources and the settings alone."""
    train, validation = (tally.splits[split] for split in SPLITS)
    return {
        "kept": tally.kept_by_split,
        "copies": int(table.copies[decisions.kept].sum()),
        "skipped": dict(tally.reasons.most_common()),
        "examples": tally.examples,
        "sources": [
            {**source, **_of_source(tally, index)}
            for index, source in enumerate(resolved(config)["sources"])
        ],
        "split": resolved(config.split),
        "images": resolved(config.images),
        "lint_settings": resolved(config.lint),
        "output_format": config.output_format,
        "instruction": config.instruction,
        "levels": {split: dict(sorted(tally.splits[split].levels.items())) for split in SPLITS},
        "faces": {split: sorted(tally.splits[split].faces) for split in SPLITS},
        "characters": dict(sorted(train.characters.items())),
        "graphemes": dict(sorted(train.graphemes.items())),
        "characters_only_in_validation": _only_in_validation(
            train.characters, validation.characters
        ),
        "graphemes_only_in_validation": _only_in_validation(train.graphemes, validation.graphemes),
        "held_out": _held_out(tally, table, decisions),
        "lint": {
            kind: {"count": count, "examples": tally.lint_examples.get(kind, [])}
            for kind, count in tally.lint.most_common()
        },
        "near_duplicates": _pairs(decisions.near, table),
        "same_image_other_text": _pairs(decisions.conflicts, table),
        "dimensions": _dimensions(config, table.sizes_px[decisions.kept]),
        "fingerprint": {split: tally.splits[split].fingerprint.hexdigest() for split in SPLITS},
    }


def _held_out(tally: Tally, table: Table, decisions: Decisions) -> dict[str, Any]:
    """Return the fonts and texts of validation that training does not have."""
    train, validation = (tally.splits[split] for split in SPLITS)
    kept, in_validation = decisions.kept, table.validation[decisions.kept]
    train_texts, texts = (table["text_key"][kept[in_validation == side]] for side in (False, True))
    return {
        "faces": sorted(validation.faces - train.faces),
        "texts": len(np.unique(texts)),
        "texts_also_in_train": int(np.isin(np.unique(texts), train_texts).sum()),
        "samples_whose_text_is_in_train": int(np.isin(texts, train_texts).sum()),
        "texts_sha256": hashlib.sha256(np.unique(texts).tobytes()).hexdigest(),
    }


def _of_source(tally: Tally, index: int) -> dict[str, Any]:
    skipped = Counter(
        {reason: count for (source, reason), count in tally.skipped.items() if source == index}
    )
    return {
        "kept": {split: tally.kept[index, split] for split in SPLITS},
        "skipped": dict(skipped.most_common()),
    }


def _only_in_validation(train: Counter[str], validation: Counter[str]) -> dict[str, int]:
    return {unit: count for unit, count in sorted(validation.items()) if unit not in train}


def _pairs(counted: tuple[int, list[tuple[int, int]]], table: Table) -> dict[str, Any]:
    count, pairs = counted
    return {"pairs": count, "examples": list(described_pairs(pairs, table))}


def _dimensions(config: PrepareConfig, sizes_px: NDArray[np.int32]) -> dict[str, Any]:
    """Return percentiles of the measured images' width, height and aspect, and a canvas for all.

    `padding_buffer` widens the canvas.
    """
    sizes_px = sizes_px[: config.dimension_scan_samples]
    if not config.scan_dataset_dimensions or not len(sizes_px):
        return {}
    width, height = sizes_px.T
    measures = {"width_px": width, "height_px": height, "aspect": width / height}
    shown = {
        name: {f"p{p}": round(float(np.percentile(values, p)), 2) for p in _PERCENTILES}
        for name, values in measures.items()
    }
    canvas = [int(np.ceil(side.max() * config.padding_buffer)) for side in (width, height)]
    return {"samples": len(sizes_px), **shown, "canvas_px": canvas}


def table_of(value: dict[str, Any]) -> str:
    """Return the table that `prepare.py` ends with.

    It lists kept and skipped samples by source and reason, sizes, labels and characters.
    """
    lines = [*_describe_sources(value), *_describe_sizes(value)]
    lines += [
        f"{'label' if kind in KINDS else 'image'}: {kind}: {fault['count']:,} times, "
        f"such as {fault['examples'][0][:150]}"
        for kind, fault in value["lint"].items()
    ]
    lines += [
        f"{value[key]['pairs']:,} pairs: {words}"
        for key, words in _PAIR_WORDS
        if value[key]["pairs"]
    ]
    if value["copies"]:
        lines.append(
            f"{value['copies']:,} of the training samples are degraded copies (aug_copies)"
        )
    return "\n".join([*lines, *_describe_splits(value), *_describe_characters(value)])


def _describe_sources(value: dict[str, Any]) -> Iterator[str]:
    for number, source in enumerate(value["sources"], start=1):
        name = source.get("path") or ", ".join(source.get("texts", []))
        kept = ", ".join(f"{count:,} {split}" for split, count in source["kept"].items() if count)
        yield f"source {number}, {source['format']} {name}: kept {kept or 'none'}"
        for reason, count in source["skipped"].items():
            example = value["examples"][reason][:150]
            yield f"     left out {count:>8,}  {reason}, such as {example}"


def _describe_sizes(value: dict[str, Any]) -> Iterator[str]:
    if not value["dimensions"]:
        return
    for name, measure in (("width", "width_px"), ("height", "height_px"), ("aspect", "aspect")):
        percentiles = value["dimensions"][measure].items()
        yield f"{name:<7}" + "  ".join(f"{label} {number:g}" for label, number in percentiles)


def _describe_characters(value: dict[str, Any]) -> Iterator[str]:
    """Describe the rarest characters, and those that training lacks."""
    rare = sorted(value["characters"].items(), key=lambda pair: pair[1])[:5]
    if rare:
        yield (
            f"{len(value['characters']):,} characters, {len(value['graphemes']):,} grapheme "
            f"clusters in training; rarest: {_listed(rare)}"
        )
    unseen = list(value["characters_only_in_validation"].items())
    if unseen:
        yield (
            f"validation has, training lacks {len(unseen)} characters: "
            f"{_listed(unseen[:10])}{' …' if len(unseen) > 10 else ''}"
        )


def _listed(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{describe_character(character)} ({count}×)" for character, count in counts)


def _describe_splits(value: dict[str, Any]) -> list[str]:
    """Describe the validation split; an empty one is described by `ocr/dataset/division.py`."""
    kept, held_out = value["kept"], value["held_out"]
    if not all(kept[name] for name in SPLITS):
        return []
    share = kept["validation"] / sum(kept.values())
    return [
        f"validation: {kept['validation']:,} samples ({share:.1%} of all), "
        f"{held_out['texts']:,} different texts; "
        f"the text of {held_out['samples_whose_text_is_in_train']:,} of them is in training too"
    ]


_PAIR_WORDS = (
    ("near_duplicates", "same text, almost the same image (kept; see dataset.json)"),
    ("same_image_other_text", "the same image with different texts (kept; see dataset.json)"),
)


def card(config: PrepareConfig, value: dict[str, Any]) -> str:
    """Return README.md of the folder, with the metadata that the hub reads.

    It has no `configs:`, by which `datasets` 5.2 mistakes a folder for an older one of its name.
    """
    total = sum(value["kept"].values())
    bounds = (
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
    )
    size = next((name for bound, name in bounds if total < bound), "1M<n<10M")
    metadata: dict[str, Any] = {
        "task_categories": ["image-to-text"],
        "tags": ["ocr", "lipi"],
        "size_categories": [size],
    }
    template = environment(Path(__file__).parent, markdown=True).get_template("card.md.j2")
    text = template.render(
        metadata=yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False).strip(),
        name=config.hub_repo or config.output.rstrip("/").rpartition("/")[2],
        **value,
    )
    return f"{text}\n"
