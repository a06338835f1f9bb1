"""A word on the command line means what it says: a text setting takes it as it stands."""

import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocr.dataset.config import PrepareConfig
from ocr.errors import UserError
from ocr.retraining import RetrainConfig
from ocr.settings import Settings, groups_in, settings_from, tag_of, with_home
from ocr.sources.settings import SourceSettings
from serve.config import ServeConfig
from tests.support.tiny import TINY
from trainers.config import TrainConfig
from trainers.config.export_request import ExportRequest
from trainers.sweep.settings import SweepConfig

SOURCE = {
    "page": {"path": "a"},
    "alto": {"path": "a"},
    "paddle": {"path": "a"},
    "corrections": {"path": "a"},
    "table": {"path": "a"},
    "label_studio": {"path": "a"},
    "huggingface": {"path": "a"},
    "pairs": {"path": "a"},
    "synthetic": {"dictionary": "a", "level": "character", "script": "Oriya", "count": 1},
}
SOURCES = [{"format": name, **values} for name, values in SOURCE.items()]
BASES: list[tuple[type[Settings], dict[str, Any]]] = [
    (PrepareConfig, {"output": "o", "sources": SOURCES}),
    (TrainConfig, {**TINY, "data": {"train": SOURCES}}),
    (TrainConfig, {**TINY, "data": {"train": "x"}, "model": {"kind": "compact"}}),
    (
        TrainConfig,
        {
            **{key: value for key, value in TINY.items() if key not in ("decoding",)},
            "model": {"kind": "vlm", "name_or_path": "x"},
            "loss": {"name": "cross_entropy"},
        },
    ),
    (
        SweepConfig,
        {"sweep_name": "s", "base": "b", "space": {"a.b": {"choice": [1]}}, "trials": 1},
    ),
    (ServeConfig, {"bundle": "odia", "api_keys": [{"name": "a", "sha256": "0" * 64}]}),
    (RetrainConfig, {"bundle": "odia", "corrections": "c"}),
    (ExportRequest, {}),
]
# texts with a grammar of their own, which refuse most words
GRAMMAR = {"group_pattern", "run_name", "sweep_name", "repo_id", "hub_repo", "script"}
GRAMMAR |= {"label_studio_url", "name", "sha256"}
PATHS = {
    *("path", "images", "texts", "fonts", "dictionary", "character_dict_path", "output"),
    *("storage_path", "train", "validation", "replay", "init_from", "resume_from", "llama_cpp"),
    *("base", "base_data", "name_or_path", "bundle", "corrections", "vllm"),
}


def members(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        return members(typing.get_args(annotation)[0])
    arguments = typing.get_args(annotation)
    if type(None) in arguments or typing.get_origin(annotation) is typing.Union:
        return [member for argument in arguments for member in members(argument)]
    return [annotation]


def texts_of(kind: type[Settings], values: Any, prefix: str = "") -> list[tuple[str, bool]]:
    """Every setting whose type is a text: its dotted key, and whether it may be null."""
    found = list[tuple[str, bool]]()
    for name, field in kind.model_fields.items():
        given, kinds = values.get(name), members(field.annotation)
        if str in kinds and name not in GRAMMAR:
            found.append((prefix + name, type(None) in kinds))
        groups = list(groups_in(field.annotation))
        if isinstance(given, list) and groups:
            for index, item in enumerate(given):
                one = next(group for group in groups if tag_of(group) == item.get("format"))
                found += texts_of(one, item, f"{prefix}{name}.{index}.")
        elif groups and not any(issubclass(group, SourceSettings) for group in groups):
            inner = given if isinstance(given, dict) else {}
            tagged = [group for group in groups if tag_of(group) == inner.get("kind")]
            found += texts_of((tagged or groups)[0], inner, f"{prefix}{name}.")
    return found


KEYS = [
    pytest.param(kind, values, key, nullable, id=f"{kind.__name__}{number}.{key}")
    for number, (kind, values) in enumerate(BASES)
    for key, nullable in texts_of(kind, values)
]


def at(settings_: Any, key: str) -> Any:
    for part in key.split("."):
        settings_ = settings_[int(part)] if part.isdecimal() else getattr(settings_, part)
    return settings_


WORDS = st.text(
    st.sampled_from("#: ,~[]{}'\"-=&*!|>%@`?\\/\tab019.eEnulNULLyesoé୧କ୍ଷ"), min_size=1, max_size=12
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def assert_comes_out(
    kind: type[Settings], values: dict[str, Any], key: str, nullable: bool, examples: int
) -> None:
    is_path = key.rpartition(".")[2] in PATHS

    @settings(max_examples=examples, deadline=None, database=None)
    @example("a #2")
    @example("a: b")
    @example("1e5")
    @example("010")
    @example("2024-01-01")
    @example("null")
    @example("null ")
    @example("no")
    @example("a, b")
    @example("[draft")
    @example("~")
    @example("~/x")
    @given(WORDS)
    def holds(word: str) -> None:
        if nullable and word == "null":
            return
        if word.strip()[:1] + word.strip()[-1:] in ("[]", "{}") and key.startswith("data."):
            return  # there a word in brackets is a list of sources
        read = at(settings_from(kind, values, [f"{key}={word}"], "test"), key)
        assert read == (with_home(word) if is_path else word)

    holds()


@pytest.mark.parametrize(("kind", "values", "key", "nullable"), KEYS)
def test_what_goes_into_a_text_setting_comes_out(
    kind: type[Settings], values: dict[str, Any], key: str, nullable: bool
) -> None:
    assert_comes_out(kind, values, key, nullable, 15)


def test_many_settings_are_tried() -> None:
    keys = {str(param.id).partition(".")[2] for param in KEYS}
    assert {"output", "sources.2.delimiter", "data.train", "train.init_from", "storage_path"} < keys
    assert {"model.name_or_path", "base", "bundle", "corrections", "export.llama_cpp"} < keys


PREPARE = {"output": "o", "sources": [{"format": "paddle", "path": "a", "images": "b"}]}


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("split.by=[writer, page]", "split.by", ("writer", "page")),
        ("split.by=[no, 1.0, null, 2024-01-01]", "split.by", ("no", "1.0", "null", "2024-01-01")),
        ("split.by=['a #1', \"b\"]", "split.by", ("a #1", "b")),
        ("sources=[{format: pairs, path: 2024-01-01}]", "sources.0.path", "2024-01-01"),
        ("sources.0.images=null", "sources.0.images", None),
        ("sources.0.images=", "sources.0.images", None),
        ("instruction=", "instruction", ""),
        ("instruction=null", "instruction", "null"),
        ("workers= 2", "workers", 2),
        ("images.max_image_edge=010", "images.max_image_edge", 10),
        ("images.max_image_edge=~", "images.max_image_edge", None),
        ("max_skipped=1e-2", "max_skipped", 0.01),
        ("lint.fix=yes", "lint.fix", True),
        ("sources.0.format=paddle", "sources.0.format", "paddle"),
    ],
)
def test_other_types_are_read_as_yaml(word: str, key: str, value: Any) -> None:
    assert at(settings_from(PrepareConfig, PREPARE, [word], "test"), key) == value


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("workers=2 #3", "workers: .* got '2 #3'"),
        ("split.by=[a, b] #c", "takes '#c' for a comment"),
        ("split.by=[a #b]", "takes '#b]' for a comment"),
        ("split.by=page", r"split.by: expected a list, such as \[a, b\], got 'page'"),
        ("split.by=[a", "not valid YAML"),
        ("split=page", "split: expected a mapping, such as {a: b}, got 'page'"),
        ("sources.0.max_text_length=1:30", "max_text_length: .* got '1:30'"),
        ("split={seed: 1, seed: 2}", "duplicate key 'seed'"),
        ("sources.0.max_text_length=soon", "1 mistake\n"),
    ],
)
def test_nothing_is_lost_without_an_error(word: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        settings_from(PrepareConfig, PREPARE, [word], "test")


def test_a_list_of_texts_takes_one_word_where_it_takes_one(tmp_path: Path) -> None:
    source = {"format": "huggingface", "path": "a"}
    values = {"output": "o", "sources": [source]}
    word = "sources.0.dataset_classes=1880 #2"
    read = settings_from(PrepareConfig, values, [word], "test")
    assert at(read, "sources.0.dataset_classes") == ("1880 #2",)
    one = settings_from(TrainConfig, TINY, ["report_to=wandb"], "test")
    none = settings_from(TrainConfig, TINY, ["report_to=none"], "test")
    assert (one.report_to, none.report_to) == (("wandb",), ())


def test_choices_of_a_sweep_are_numbers_truth_values_or_words() -> None:
    values = {"sweep_name": "s", "base": "b", "trials": 1, "space": {"a": {"choice": [1]}}}
    sweep = settings_from(SweepConfig, values, ["space.a.choice=[1, 0.5, true, x y, 1e-4]"], "test")
    assert sweep.space["a"].choice == (1, 0.5, True, "x y", 1e-4)


def test_a_home_in_yaml_is_the_home_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of me")
    source = "{format: synthetic, texts: [~/a, b~], script: Oriya, count: 1}"
    text = f"output: ~/out\nsources: [{source}]"
    read = settings_from(PrepareConfig, yaml.safe_load(text), [], "test")
    assert read.output == "/home/of me/out"
    assert at(read, "sources.0.texts") == ("/home/of me/a", "b~")
    listed = settings_from(PrepareConfig, PREPARE, ["sources.0.images=~"], "test")
    assert at(listed, "sources.0.images") == "/home/of me"


def test_deepspeeds_file_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "zero #2.json").write_text('{"zero_optimization": {"stage": 2}}')
    words = ["engine=deepspeed", "deepspeed.config=~/zero #2.json"]
    assert settings_from(TrainConfig, TINY, words, "test").zero_stage == 2
