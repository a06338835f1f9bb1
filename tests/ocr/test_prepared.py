"""Data as a training config names it: sources that are prepared on the way."""

import json
from pathlib import Path

import numpy as np

from ocr.dataset.prepared import open_splits
from ocr.images import encode_image
from ocr.settings import parse_settings
from ocr.sources.settings import CorrectionsSettings


def test_a_dozen_samples_are_divided_near_the_ratio(tmp_path: Path) -> None:

    draw = np.random.default_rng(3)
    for number in range(12):
        (tmp_path / f"{number:02}.png").write_bytes(
            encode_image(draw.integers(0, 255, (32, 90), dtype=np.uint8))
        )
        (tmp_path / f"{number:02}.json").write_text(
            json.dumps({"corrected_text": ["ଘର", "ନଦୀ", "ଗଛ", "ଫୁଲ", "ପାଣି"][number % 5]}),
            encoding="utf-8",
        )
    for ratio in (0.2, 0.4):
        train, validation = open_splits(
            [parse_settings(CorrectionsSettings, {"path": str(tmp_path)}, "test")],
            None,
            ratio,
            0.01,
        )
        assert (
            len(train) + len(validation) == 12
            and 0.5 * ratio <= len(validation) / 12 <= 1.5 * ratio
        )
        assert not set(train.texts) & set(validation.texts)
