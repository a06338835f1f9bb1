"""A run of the Thai system's other network, chosen on the command line.

Labels are checked against its fixed number of outputs.
"""

from pathlib import Path

import pytest

from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.recognizers.ctc.settings import SvtrSettings
from ocr.settings import load_settings
from tests.support.tiny import tiny_config
from trainers.config import TrainConfig
from trainers.families.ctc.losses import outputs_needed
from trainers.families.ctc.samples import usable_samples


def test_labels_that_need_more_outputs_than_the_network_has_are_named_with_the_setting(
    tmp_path: Path,
) -> None:
    train, validation = (
        Dataset.open("odia_words", "train"),
        Dataset.open("odia_words", "validation"),
    )
    config = tiny_config(tmp_path, model=SvtrSettings(out_char_num=6), max_skipped=1.0)
    usable = usable_samples(config, train, validation)
    assert usable.skipped == {"label too long for its image": 200 - len(usable.train)}
    needed = [outputs_needed(usable.alphabet.encode(train.texts[index])) for index in range(200)]
    assert (
        usable.train == tuple(index for index in range(200) if needed[index] <= 6)
        and len(usable.train) > 20
    )
    assert set(usable.widths) == {256}
    with pytest.raises(UserError, match=r"needs \d+ outputs, model\.out_char_num gives 6"):
        usable_samples(tiny_config(tmp_path, model=SvtrSettings(out_char_num=6)), train, validation)


def test_the_thai_config_takes_the_network_that_its_header_offers() -> None:
    path = Path("configs/thai/main.yaml")
    (offered,) = [line for line in path.read_text().splitlines() if "kind: svtr" in line]
    overrides = [part for part in offered.split("'") if part.startswith("model=")]
    model = load_settings(TrainConfig, path, overrides).model
    assert isinstance(model, SvtrSettings)
    assert (model.width_px, model.height_px, model.out_channels, model.out_char_num) == (
        256,
        64,
        192,
        25,
    )
    assert model.character_dict_path == "configs/thai/th_dict.txt" and model.use_space_char
