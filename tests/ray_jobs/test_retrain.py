"""`retrain.py` from the shell.

Mistakes are told before anything is trained (tests/faults/test_learning.py trains).
"""

import json
from pathlib import Path

import pytest

from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image
from tests.support.commands import assert_refused, call


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve words as PNG + JSON."""
    data, folder = Dataset.open("odia_words", "validation"), tmp_path_factory.mktemp("corrections")
    for index in range(12):
        (folder / f"{index:02}.png").write_bytes(encode_image(open_image(data.image_bytes(index))))
        (folder / f"{index:02}.json").write_text(
            json.dumps({"corrected_text": data.texts[index]}, ensure_ascii=False)
        )
    return folder


def test_mistakes_are_told_before_anything_is_trained(corrections: Path, tmp_path: Path) -> None:
    assert_refused(call("retrain", "odia", corrections, "epochs=3"), "epochs: unknown setting")
    assert_refused(
        call("retrain", "nothing", corrections, f"storage_path={tmp_path}"),
        "nothing: expected a bundle",
    )
    assert_refused(
        call("retrain", "odia", tmp_path, f"storage_path={tmp_path}"),
        "a folder of corrections: x.png with x.json",
    )
    assert_refused(
        call("retrain", "odia", corrections, "min_samples=13", f"storage_path={tmp_path}"),
        "12 usable corrections; at least 13 are needed",
    )
    assert list(tmp_path.iterdir()) == []
