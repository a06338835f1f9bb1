"""Vision-language bundles are retrained as they are: an adapter goes on, a merged model is a base.

`tests/faults/test_learning_vlm.py` has one that learns and is promoted.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ocr.bundle import open_bundle, write_bundle
from ocr.errors import UserError
from ocr.recognizers.factory import load
from ocr.retraining import BETTER, REFUSED, UNSURE, RetrainConfig
from tests.support.tiny import train_here
from tests.support.tiny_vlm_bundle import adapter_bundle, corrections_of, few_samples
from trainers.config import config_of_run
from trainers.retrain.run import Retrained, retrain
from trainers.retrain.work import Work
from trainers.runs.export import export_run

WORDS = "odia_few_words"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a run of two steps, on a base with random weights."""
    torch.set_num_threads(1)
    return adapter_bundle(tmp_path_factory.mktemp("vlm"), steps=2, base_steps=0, data=WORDS)


def retrained(bundle: Path, folder: Path) -> Retrained:
    """Retrain on ten words for three steps."""
    values = {
        "bundle": str(bundle),
        "corrections": str(corrections_of(folder / "corrections", WORDS, range(10))),
        "storage_path": str(folder / "runs"),
        "replay": few_samples(folder / "replay", WORDS, 12, 6),
        "folds": 2,
        "max_steps": 3,
        "micro_batch_size": 8,
        "device": "cpu",
    }
    return retrain(RetrainConfig.model_validate(values), Work(train_here), "the command")


def test_an_adapter_is_trained_further_as_its_bundle_says(bundle: Path, tmp_path: Path) -> None:
    done = retrained(bundle, tmp_path)
    verdict = json.loads(Path(done.output, "verdict.json").read_text())
    assert verdict["verdict"] in (BETTER, UNSURE, REFUSED)
    assert (verdict["corrections"]["samples"], verdict["base"]["samples"]) == (10, 6)
    old, made = open_bundle(bundle), open_bundle(f"{done.output}/bundle")
    assert made.name == "tiny-vlm-r1" and made.card["form"] == "adapter"
    assert made.model == old.model and made.decoding == old.decoding
    run = config_of_run(Path(done.output, made.name, "config.yaml"))
    assert run.train.init_from == str(bundle)
    assert (run.optimizer.learning_rate, run.kornia.strength) == (1e-4, 0.3)
    assert load(made.path, device="cpu").read([tmp_path / "corrections" / "000.png"])


def test_of_a_merged_model_a_merged_one_is_made_and_that_is_retrained_again(
    bundle: Path, tmp_path: Path
) -> None:
    merged = export_run(bundle.parent, ["format=merged"]).bundle
    done = retrained(merged.path, tmp_path / "first")
    made = open_bundle(f"{done.output}/bundle")
    assert made.card["form"] == "merged" and made.model["merged"]
    assert made.model["lora"] == merged.model["lora"]
    run = config_of_run(Path(done.output, made.name, "config.yaml"))
    assert run.vlm.kind == "vlm" and run.train.init_from is None
    assert run.vlm.name_or_path == str(merged.path)
    assert made.model["base_sha256"] != merged.model["base_sha256"], "the merged weights"
    again = retrained(made.path, tmp_path / "second")
    assert again.values["candidate"].startswith("tiny-vlm-r2@")
    assert again.values["first"] == done.values["of"], "the chain's first model is known"


def test_files_for_another_program_are_not_retrained(bundle: Path, tmp_path: Path) -> None:
    other = replace(open_bundle(bundle), path=tmp_path / "gguf", family="gguf")
    write_bundle(other, {"model.gguf": b""})
    values = {"bundle": str(other.path), "corrections": str(tmp_path)}
    with pytest.raises(UserError, match="expected a bundle of the family ctc or vlm, got gguf"):
        retrain(RetrainConfig.model_validate(values), Work(train_here), "the command")
