"""Runs like the Thai system's: a dictionary is the alphabet, characters are read as its entries.

PaddleOCR's figures are reported beside ours.
"""

from pathlib import Path

import pytest
import torch

from ocr.bundle import open_bundle
from ocr.errors import UserError
from ocr.evaluation import Evaluation, Line
from ocr.recognizers.factory import load
from ocr.settings import load_settings
from ocr.sources.settings import PaddleSettings
from tests.support.tiny import tiny_config, train_here
from trainers.config import TrainConfig
from trainers.runs.identity import identity
from trainers.runs.job import Data
from trainers.runs.launch import launch

ENTRIES = ["ก", "ข", "กี", "กี่", "ฎ", "๗"]


def config(storage: Path, entries: list[str], **changes: object) -> TrainConfig:
    dictionary = storage / "th_dict.txt"
    dictionary.write_text("\n".join(entries) + "\n", encoding="utf-8")
    source = {
        "format": "synthetic",
        "level": "character",
        "dictionary": str(dictionary),
        "script": "Thai",
        "fonts": ["Noto Sans Thai"],
    }
    data = {
        "train": [
            {**source, "count": 60, "split": "train", "seed": 1},
            {**source, "count": 12, "split": "validation", "seed": 2},
        ]
    }
    data |= {"max_train_samples": None, "max_validation_samples": None}  # type: ignore[dict-item]
    train = {"max_steps": 30, "save_steps": 30, "eval_steps": 30}
    model = {
        "kind": "compact",
        "size": "small",
        "dropout": 0.0,
        "character_dict_path": str(dictionary),
    }
    return tiny_config(
        storage, data=data, train=train, model=model, optimizer={"learning_rate": 3e-3}, **changes
    )


def test_a_single_character_is_read_as_an_entry_of_the_dictionary(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    outcome = launch(config(tmp_path, ENTRIES, decoding={"method": "closed"}), train_here, "c")
    bundle = open_bundle(outcome.run_dir / "bundle")
    assert bundle.alphabet == sorted(set("".join(ENTRIES)))
    (tmp_path / "th_dict.txt").unlink()  # sealed: the file is not needed to read
    recognizer = load(bundle.path)
    data = Data.open(config(tmp_path, ENTRIES)).validation
    from ocr.images import open_image

    readings = recognizer.read([open_image(data.image_bytes(index)) for index in range(len(data))])
    assert {reading.text for reading in readings} <= set(ENTRIES)
    assert outcome.report["paddleocr"]["acc"] == outcome.report["eval_exact_match"]
    assert outcome.report["samples_used"] == 72 and outcome.report["vocab_size"] == 1 + len(
        bundle.alphabet
    )


def test_a_label_that_the_dictionary_cannot_spell_is_named(tmp_path: Path) -> None:
    whole = config(tmp_path, ENTRIES)
    Data.open(whole)
    (tmp_path / "short.txt").write_text("ก\nข\nกี\n", encoding="utf-8")
    short = whole.model_copy(
        update={
            "model": whole.model.model_copy(
                update={"character_dict_path": str(tmp_path / "short.txt")}
            )
        }
    )
    with pytest.raises(UserError, match=r"no entry spells .*U\+0E48 THAI CHARACTER MAI EK"):
        Data.open(short)


@pytest.mark.parametrize("name", ["dev", "main", "prod"])
def test_a_config_names_the_dictionary_once(name: str) -> None:
    path, mine = Path(f"configs/thai/{name}.yaml"), "data.character_dict_path=my_dict.txt"
    words = [mine, "data.max_text_length=1", "decoding.method=closed", "data.use_space_char=false"]
    config = load_settings(TrainConfig, path, words)
    assert (config.ctc.character_dict_path, config.ctc.use_space_char) == ("my_dict.txt", False)
    for sources in (config.data.train, config.data.validation):
        (source,) = sources
        assert isinstance(source, PaddleSettings)
        assert source.character_dict_path == "my_dict.txt"
        assert (source.use_space_char, source.max_text_length) == (False, 1)
    again = load_settings(TrainConfig, path, [*words, "data.train.0.max_text_length=9"])
    assert again.data.train[0].max_text_length == 9, "its own is the source's"


def test_a_run_is_the_same_however_its_dictionary_was_named(tmp_path: Path) -> None:
    source = {"format": "paddle", "path": "labels.txt"}
    own = {"character_dict_path": "d.txt", "use_space_char": True}
    shared = tiny_config(tmp_path, data={"train": [source], **own})
    apart = tiny_config(tmp_path, data={"train": [source | own]}, model=own)
    assert identity(shared, {}) == identity(apart, {})
    assert shared.data.train == apart.data.train
    # a prepared folder in place of label files keeps the dictionary of the network
    words = ["data.train=odia_words", "data.validation=null"]
    folder = load_settings(TrainConfig, Path("configs/thai/dev.yaml"), words)
    assert folder.ctc.character_dict_path == "configs/thai/th_dict.txt"


def test_closed_decoding_needs_a_dictionary(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name it in model\.character_dict_path"):
        tiny_config(tmp_path, decoding={"method": "closed"})


def test_paddleocrs_figures_leave_spaces_out() -> None:
    lines = [Line(0, "a", "กข คง", "กขคง", 1.0), Line(1, "b", "กขคง", "กข", 1.0)]
    found = Evaluation(tuple(lines)).paddle
    assert found == {"acc": 0.5, "norm_edit_dis": 0.75, "char_acc": 0.75}


def test_samples_and_their_problems_are_listed_before_training(tmp_path: Path) -> None:
    told = Data.open(config(tmp_path, ENTRIES)).listing()
    assert (
        told.count("\ntrain ") + told.startswith("train ") == 60
        and "72" not in told.splitlines()[-2].split()[0]
    )
    counts = "60 training samples, 12 validation samples, 6 characters"
    assert told.endswith(f"{counts}\nno problem found")
