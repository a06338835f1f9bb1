"""Starting from another network's weights: alphabets, replay, and lengths given in passes."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ocr.bundle import open_bundle
from ocr.errors import UserError
from ocr.recognizers.ctc.settings import CrnnSettings
from tests.support.tiny import tiny_config, tiny_context, train_here
from trainers.config import TrainConfig
from trainers.loop.batches import Plan
from trainers.loop.loop import fit
from trainers.loop.run_state import in_steps, plan_of
from trainers.runs.job import Data
from trainers.runs.launch import launch

SHORT = {"max_steps": 6, "save_steps": 3, "eval_steps": 6}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a run of six steps, which knows the characters of 200 words."""
    torch.set_num_threads(1)
    config = tiny_config(tmp_path_factory.mktemp("base"), train=SHORT)
    launch(config, train_here, "the command")
    return config.local_run_dir / "bundle"


def from_base(base: Path, storage: Path, alphabet: str, **changes: Any) -> TrainConfig:
    train = {**SHORT, "init_from": str(base), "init_alphabet": alphabet}
    return tiny_config(
        storage,
        **{
            "train": train,
            "run_name": "start",
            "data": {"max_train_samples": 30, "min_samples": 10},
            **changes,
        },
    )


@pytest.mark.parametrize("alphabet", ["union", "new"])
def test_characters_that_both_know_keep_their_weights(
    base: Path, tmp_path: Path, alphabet: str
) -> None:
    config = from_base(base, tmp_path, alphabet)
    task, known = Data.open(config).task(config, "cpu"), open_bundle(base)
    old, new = known.weights(), task.network.state_dict()
    assert torch.equal(new["blocks.0.convolution.weight"], old["blocks.0.convolution.weight"])
    assert torch.equal(new["direct.weight"][0], old["direct.weight"][0])  # the blank
    shared = [character for character in task.alphabet.characters if character in known.alphabet]
    assert len(shared) > 20
    for character in shared:
        ours, theirs = task.alphabet.encode(character)[0], 1 + known.alphabet.index(character)
        assert torch.equal(new["direct.weight"][ours], old["direct.weight"][theirs])
        assert torch.equal(new["classes.bias"][ours], old["classes.bias"][theirs])
    assert (set(known.alphabet) <= set(task.alphabet.characters)) == (alphabet == "union")


def test_an_alphabet_that_must_not_grow_names_what_it_lacks(base: Path, tmp_path: Path) -> None:
    missing = from_base(base, tmp_path, "fail", data={"max_train_samples": 4000})
    with pytest.raises(UserError, match=r"characters outside the alphabet: U\+0B"):
        Data.open(missing)
    Data.open(from_base(base, tmp_path, "fail"))


def test_another_network_is_refused_with_what_to_set(base: Path, tmp_path: Path) -> None:
    other = from_base(base, tmp_path, "union", model={"size": "base"})
    data = Data.open(other)
    with pytest.raises(
        UserError, match=r"model\.size differs\); set model\.kind=compact model\.size=small"
    ):
        data.task(other, "cpu")


def test_a_bundle_that_is_older_than_a_setting_has_its_default(tmp_path: Path) -> None:
    from ocr.files import sha256_of, write_json

    crnn = {"model": CrnnSettings(), "max_skipped": 1.0}
    config = tiny_config(tmp_path / "old", train=SHORT | {"max_steps": 1}, **crnn)
    bundle = launch(config, train_here, "the command").run_dir / "bundle"
    description = json.loads((bundle / "bundle.json").read_text())
    del description["model"]["hidden_size"], description["model"]["num_layers"]
    write_json(bundle / "bundle.json", description)
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_json(bundle / "manifest.json", {name: sha256_of(bundle / name) for name in manifest})
    like = from_base(bundle, tmp_path, "union", **crnn)
    Data.open(like).task(like, "cpu")
    other = from_base(bundle, tmp_path, "union", **crnn | {"model": CrnnSettings(hidden_size=8)})
    with pytest.raises(UserError, match=r"\(model\.hidden_size differs.* model\.hidden_size=256"):
        Data.open(other).task(other, "cpu")


def test_fewer_samples_than_needed_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"29 usable samples, fewer than data\.min_samples=30"):
        Data.open(
            from_base(
                base,
                tmp_path,
                "union",
                data={"max_train_samples": 9, "max_validation_samples": 20, "min_samples": 30},
            )
        )


def test_replay_brings_other_samples_in_every_pass() -> None:
    plan = Plan(np.full(130, 40), 10, 5, 1, replay_pool=100, replay_per_epoch=30)
    passes = [
        {index for step in range(6) for batch in plan.step(6 * epoch + step) for index in batch}
        for epoch in range(4)
    ]
    assert plan.steps_per_epoch == 6
    for members in passes:
        assert set(range(30)) < members and len(members) == 60
    assert len(set.union(*passes)) > 90  # 30 + most of the pool


def test_a_run_with_replay_resumes_exactly(base: Path, tmp_path: Path) -> None:
    ends = []
    for stops in ((), (2, 5)):
        config = from_base(
            base,
            tmp_path / str(len(stops)),
            "union",
            data={"max_train_samples": 20, "replay": "odia_words", "replay_ratio": 0.5},
        )
        for stop in (*stops, None):
            data = Data.open(config)
            fit(config, data.task(config, "cpu"), tiny_context(config), stop_after=stop)
        ends.append(
            next(config.local_run_dir.glob("checkpoint_000006/model.safetensors")).read_bytes()
        )
    assert ends[0] == ends[1]


def test_lengths_in_passes_become_steps(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, train={"save_epochs": 5, "eval_epochs": 2}, optimizer={"warmup_epochs": 0.5}
    )
    steps = in_steps(config, plan_of(config, (40,) * 120))  # 10 steps of 12
    assert (steps.train.save_steps, steps.train.eval_steps, steps.optimizer.warmup_steps) == (
        50,
        20,
        5,
    )


def test_other_data_makes_another_run_beside_the_first(tmp_path: Path) -> None:
    few = tiny_config(tmp_path, run_name="model-{data}", train=SHORT)
    first, second = launch(few, train_here, "c"), launch(few, train_here, "c")
    assert (
        second.was_finished
        and first.run_dir == second.run_dir
        and first.run_dir.name.startswith("model-")
    )
    other = few.model_copy(update={"data": few.data.model_copy(update={"replay": "odia_words"})})
    assert launch(other, train_here, "c").run_dir != first.run_dir


def test_a_run_starts_from_a_run_a_checkpoint_or_a_bundle_alike(base: Path, tmp_path: Path) -> None:
    """Of the last checkpoint, whose weights the bundle has."""
    run_dir = base.parent
    checkpoint = run_dir / "checkpoint_000006"
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run_dir, unfinished, ignore=shutil.ignore_patterns("bundle", "report*"))
    found = []
    for number, path in enumerate((base, run_dir, checkpoint, unfinished, Path("relative"))):
        if path == Path("relative"):
            path = Path(os.path.relpath(checkpoint))
        config = from_base(path, tmp_path / str(number), "union")
        task = Data.open(config).task(config, "cpu")
        found.append((task.alphabet.characters, task.network.state_dict()))
    for characters, weights in found[1:]:
        assert characters == found[0][0]
        known = open_bundle(base)
        shared = [1 + characters.index(each) for each in known.alphabet]
        for name, tensor in weights.items():
            own = found[0][1][name]
            is_classes = name.partition(".")[0] in ("classes", "direct")
            assert (
                torch.equal(tensor[shared], own[shared]) if is_classes else torch.equal(tensor, own)
            ), name
    launch(from_base(unfinished, tmp_path / "last", "union"), train_here, "the command")


def test_what_a_run_cannot_start_from_is_named(base: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(base.parent, unfinished, ignore=shutil.ignore_patterns("bundle"))
    for damaged in unfinished.glob("checkpoint_*/model.safetensors"):
        damaged.write_bytes(b"torn")
    with pytest.raises(UserError, match="no checkpoint is good"):
        Data.open(from_base(unfinished, tmp_path, "union"))
    with pytest.raises(UserError, match="not what was written"):
        Data.open(from_base(unfinished / "checkpoint_000006", tmp_path, "union"))
    with pytest.raises(UserError, match="nowhere: expected a bundle"):
        Data.open(from_base(tmp_path / "nowhere", tmp_path, "union"))
