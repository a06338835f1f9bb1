"""Samples that a shipped recogniser replays: fewer and smaller than those it was trained on."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ocr.errors import UserError
from ocr.images import encode_image
from ocr.rendering.fonts import find_fonts
from ocr.rendering.scripts import SCRIPTS
from ocr.replay import TRAIN, VALIDATION
from trainers.config import TrainConfig
from trainers.retrain import add_replay


def test_large_sources_become_small_files_of_a_networks_height(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        find_fonts(SCRIPTS["Oriya"], ["Lohit Odia"])
    except UserError:
        pytest.skip("the font Lohit Odia is not installed (apt-get install fonts-lohit-orya)")
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path))
    monkeypatch.setattr(add_replay, "_MOST_RENDERED", {TRAIN: 12, VALIDATION: 6})
    source = {
        "format": "synthetic",
        "script": "Oriya",
        "texts": ["shipped:odia/langdata.training_text.txt.xz"],
        "level": "word",
        "length": [2, 20],
        "fonts": ["Lohit Odia"],
        "height_px": [60, 90],
        "on_the_fly": True,
    }
    sources = [
        {**source, "split": "train", "count": 300, "word_hash_range": [0.0, 0.8]},
        {**source, "split": "train", "count": 100, "seed": 2, "word_hash_range": [0.0, 0.8]},
        {**source, "split": "validation", "count": 12, "word_hash_range": [0.8, 1.0]},
    ]
    config = TrainConfig.model_validate(
        {
            "run_name": "x",
            "data": {"train": sources},
            "model": {"kind": "compact"},
            "train": {"max_steps": 1},
        }
    )
    files = add_replay.files_of(config)
    rows = {name: pq.read_table(io.BytesIO(content)).to_pylist() for name, content in files.items()}
    assert (len(rows[TRAIN]), len(rows[VALIDATION])) == (12, 6)
    images = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows[TRAIN]]
    assert {image.format for image in images} == {"WEBP"}
    assert max(image.height for image in images) == 52


@pytest.mark.parametrize("level", ["word", "character"])
def test_no_word_is_replayed_and_judged_but_characters_are_both(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(3)
    for split, texts in (("train", "କଖଗଘ"), ("validation", "କଖ")):
        (tmp_path / split).mkdir()
        for number, text in enumerate(texts):
            image = encode_image(draw.integers(0, 255, (32, 60), dtype=np.uint8))
            (tmp_path / split / f"{number}.png").write_bytes(image)
            (tmp_path / split / f"{number}.gt.txt").write_text(text, encoding="utf-8")
    sources = [
        {"format": "pairs", "path": str(tmp_path / split), "split": split, "level": level}
        for split in ("train", "validation")
    ]
    config = TrainConfig.model_validate(
        {
            "run_name": "x",
            "data": {"train": sources},
            "model": {"kind": "compact"},
            "train": {"max_steps": 1},
        }
    )
    files = add_replay.files_of(config)
    texts = [pq.read_table(io.BytesIO(files[name])).column("text") for name in (TRAIN, VALIDATION)]
    replayed, judged = (sorted(column.to_pylist()) for column in texts)
    assert (replayed, judged) == (list("କଖଗଘ") if level == "character" else ["ଗ", "ଘ"], ["କ", "ଖ"])
