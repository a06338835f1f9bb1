"""A bundle with another geometry: measured again, its weights as they were."""

from pathlib import Path

import pytest

from ocr.bundle import SHIPPED, open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.recognizers import load
from ocr.replay import VALIDATION, few
from trainers.families.ctc.reseal import main, reseal


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The Bangla recogniser with few samples and int8 alone, so that measuring is quick."""
    from dataclasses import replace

    from ocr.bundle import write_bundle

    bundle = open_bundle(SHIPPED / "bangla")
    data = Dataset.open(str(bundle.path), "validation")
    folder = tmp_path / "bangla"
    backends = {"onnx-int8": bundle.backends["onnx-int8"]}
    made = replace(bundle, path=folder, backends=backends)
    write_bundle(made, {**bundle.files(), VALIDATION: few(data, 60)})
    return folder


def test_geometry_changes_and_figures_are_measured_again(small: Path, tmp_path: Path) -> None:
    before = open_bundle(small)
    made = reseal(before, tmp_path / "made", {"crop": "line", "stretch": 1.2})
    assert (made.model["crop"], made.model["stretch"]) == ("line", 1.2)
    assert made.read("weights.safetensors") == before.read("weights.safetensors")
    assert made.card["judged_samples"] == 60
    assert 0 < made.backends["onnx-int8"] < 0.5
    image = tmp_path / "word.webp"
    image.write_bytes(Dataset.open(str(small), "validation").image_bytes(0))
    (reading,) = load(tmp_path / "made").read([image])
    assert 0 <= reading.confidence <= 1
    assert not list(tmp_path.glob("*.unchecked"))


def test_mistakes_are_named_and_nothing_is_written(small: Path, tmp_path: Path) -> None:
    for words, message in (
        (["stretch=9"], "less than or equal to 3"),
        (["crop=page"], "crop"),
        (["height_px=48"], "expected crop and stretch"),
        ([], "expected crop and stretch"),
    ):
        with pytest.raises(UserError, match=message):
            main([str(small), f"output={tmp_path / 'no'}", *words])
    assert not (tmp_path / "no").exists()


def test_a_bundle_without_samples_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(UserError, match="add_replay"):
        reseal(
            replace(open_bundle(SHIPPED / "odia"), path=tmp_path), tmp_path / "x", {"crop": "line"}
        )
