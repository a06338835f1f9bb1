"""A run's identity: what makes it this run, whatever settings later versions bring."""

from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.settings import Setting
from tests.support.tiny import tiny_config
from trainers.config import TrainConfig
from trainers.runs.identity import identity

DATA = {"train": "a", "validation": "b"}


class LaterConfig(TrainConfig):
    """As a later version may have it."""

    new_setting: int = Setting(3, on_resume="refuse", description="came later")


def test_a_later_version_with_a_new_setting_continues_the_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    later = LaterConfig.model_validate(config.model_dump())
    assert identity(later, DATA) == identity(config, DATA)
    assert identity(later.model_copy(update={"new_setting": 4}), DATA) != identity(config, DATA)


def test_another_network_seed_or_data_is_another_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, model={"dropout": 0.3})
    others = [
        tiny_config(tmp_path, model={"size": "base", "dropout": 0.3}),
        tiny_config(tmp_path, model={"dropout": 0.3}, train={"seed": 5}),
    ]
    assert all(identity(other, DATA) != identity(config, DATA) for other in others)
    assert identity(config, {**DATA, "train": "c"}) != identity(config, DATA)


def test_how_sources_were_divided_counts_by_the_data_that_came_of_it(tmp_path: Path) -> None:
    sources = [{"format": "corrections", "path": str(tmp_path)}]
    by_page, by_text = (
        tiny_config(tmp_path, data={"train": sources, "split": {"by": [fact]}})
        for fact in ("page", "text")
    )
    assert identity(by_page, DATA) == identity(by_text, DATA)
    assert identity(by_page, DATA) != identity(by_text, {**DATA, "validation": "c"})
    with pytest.raises(UserError, match=r"data: split: without effect on odia_words"):
        tiny_config(tmp_path, data={"split": {"by": ["text"]}})


def test_a_kind_counts_even_where_it_is_the_default_of_its_settings(tmp_path: Path) -> None:
    compact = TrainConfig.model_validate(
        {**tiny_config(tmp_path).model_dump(), "model": {"kind": "compact"}}
    )
    crnn = TrainConfig.model_validate(
        {**tiny_config(tmp_path).model_dump(), "model": {"kind": "crnn"}}
    )
    assert identity(compact, DATA) != identity(crnn, DATA)


def test_where_a_run_lies_and_how_it_is_exported_is_not_its_identity(tmp_path: Path) -> None:
    one, other = (
        tiny_config(tmp_path),
        tiny_config(tmp_path / "elsewhere", decoding={"method": "beam"}, workers=2),
    )
    assert identity(one, DATA) == identity(other, DATA)
