"""A config with mistakes gets every one of them named at once, with what was probably meant."""

from pathlib import Path

import pytest

from ocr.dataset.config import PrepareConfig
from ocr.errors import UserError
from ocr.settings import changed_settings, load_settings, parse_settings, settings_from
from tests.support.tiny import TINY, tiny_config
from trainers.config import LoopSettings, TrainConfig


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "run_name: x\ndata: {trian: odia_words}\ntrain: {max_stepps: 3, seed: -1}\nmodel: "
        "{kind: compact, sise: base}\nworkers: two\n",
    )
    with pytest.raises(UserError) as caught:
        load_settings(TrainConfig, file)
    message = str(caught.value)
    for part in (
        str(file),
        "data.trian: unknown setting; did you mean 'train'?",
        "max_stepps",
        "did you mean 'max_steps'?",
        "train.seed",
        "sise",
        "'size'",
        "workers",
        "'two'",
    ):
        assert part in message
    assert "data.train: missing" in message


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("learning_rate=1e-3", "did you mean optimizer.learning_rate?"),
        ("lr=1e-3", "did you mean optimizer.learning_rate?"),
        ("train.lr=1e-3", "did you mean optimizer.learning_rate?"),
        ("batch_size=4", "did you mean train.global_batch_size or"),
        ("epochs=3", "did you mean train.num_epochs?"),
        ("max_steps=3", "did you mean train.max_steps?"),
        ("validation_ratio=0.1", "did you mean data.validation_ratio?"),
        ("lora_alpha=3", "did you mean lora.alpha?"),
        ("character_dict_path=a", "data.character_dict_path or model.character_dict_path?"),
        ("optimiser.learning_rate=1", "did you mean 'optimizer'?"),
    ],
)
def test_a_setting_in_the_wrong_group_gets_its_full_name(word: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        settings_from(TrainConfig, TINY, [word], "test")
    assert says in str(caught.value)


def test_a_key_is_named_as_a_config_has_it() -> None:
    sources = [{"format": "pairs", "path": "a"}, {"format": "page", "path": 3, "levels": ["x"]}]
    with pytest.raises(UserError) as caught:
        parse_settings(TrainConfig, {**TINY, "data": {"train": sources}}, "test")
    for key in ("data.train.1.path: ", "data.train.1.levels.0: "):
        assert f"  {key}" in str(caught.value)


def test_a_mistake_in_one_source_adds_no_second_one() -> None:
    sources = [{"format": "pairs", "path": "a", "levle": "line"}]
    with pytest.raises(UserError, match=r"1 mistake\n.*levle: .* did you mean 'level'"):
        parse_settings(PrepareConfig, {"output": "o", "sources": sources}, "test")
    with pytest.raises(UserError, match=r"sources: .* at least 1 item"):
        parse_settings(PrepareConfig, {"output": "o", "sources": []}, "test")


def test_an_override_wins_over_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "run_name: x\ndata: {train: odia_words}\ntrain: {max_steps: 3}\nmodel: {kind: compact}\n",
    )
    config = load_settings(
        TrainConfig, file, ["train.max_steps=7", "model.size=small", "optimizer.learning_rate=1e-4"]
    )
    assert (config.train.max_steps, config.model.kind, config.optimizer.learning_rate) == (
        7,
        "compact",
        1e-4,
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "a mapping of settings"),
        ("a: 1\na: 2\n", "duplicate key 'a'"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str | None, part: str) -> None:
    file = tmp_path / "config.yaml" if text is None else written(tmp_path, text)
    with pytest.raises(UserError, match=part):
        load_settings(TrainConfig, file)


def test_a_merge_key_is_no_duplicate_key(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "run_name: x\ndata: {train: odia_words}\ntrain: &t {max_steps: 3}\nmodel: {kind: "
        "compact}\noptimizer:\n  <<: {name: adam, warmup_steps: 1}\n  name: adamw\n",
    )
    assert load_settings(TrainConfig, file).optimizer.name == "adamw"


def test_exactly_one_length_is_needed() -> None:
    with pytest.raises(UserError, match="exactly one of max_steps, num_epochs and max_minutes"):
        parse_settings(TrainConfig, {**TINY, "train": {"max_steps": 4, "max_minutes": 1}}, "x")


def test_no_patience_is_off_and_less_than_none_is_a_mistake() -> None:
    values = {"max_steps": 1, "early_stopping_patience": 0}
    assert parse_settings(LoopSettings, values, "test").early_stopping_patience is None
    with pytest.raises(UserError, match=r"early_stopping_patience: .* got -1"):
        parse_settings(LoopSettings, values | {"early_stopping_patience": -1}, "test")


def test_changed_settings_carry_their_rule(tmp_path: Path) -> None:
    old, new = (
        tiny_config(tmp_path),
        tiny_config(tmp_path, train={"max_steps": 50, "seed": 3}, workers=2),
    )
    assert changed_settings(old, new) == {
        "train.max_steps": "free",
        "train.seed": "refuse",
        "workers": "rounding",
    }


def test_an_override_reaches_into_a_list_by_place(tmp_path: Path) -> None:
    file = tmp_path / "prepare.yaml"
    file.write_text("output: out\nsources: [{format: pairs, path: a}, {format: pairs, path: b}]\n")
    assert [
        source.path for source in load_settings(PrepareConfig, file, ["sources.1.path=c"]).sources
    ] == ["a", "c"]
    for wrong, says in (
        ("sources.2.path=c", "expected a list index 0–1, got '2'"),
        ("sources.first.path=c", "expected a list index 0–1, got 'first'"),
    ):
        with pytest.raises(UserError, match=says):
            load_settings(PrepareConfig, file, [wrong])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            "{format: pags, path: a}",
            "sources.0.format: 'pags' is none of page, alto, paddle, table, label_studio, "
            "corrections, huggingface, pairs, synthetic; did you mean 'page'?",
        ),
        ("{path: a}", "sources.0.format: missing; set the kind of these settings"),
        (
            "{format: page, path: a, levels: line}",
            "sources.0.levels: expected a list, such as [a, b], got 'line'",
        ),
    ],
)
def test_an_unknown_source_is_described_in_our_words(
    source: str, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "prepare.yaml"
    file.write_text(f"output: out\nsources: [{source}]\n")
    with pytest.raises(UserError) as caught:
        load_settings(PrepareConfig, file)
    assert says in str(caught.value)
