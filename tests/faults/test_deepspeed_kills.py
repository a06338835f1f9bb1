"""SIGKILL under Ray while DeepSpeed divides state, gradients and weights between two workers."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml

from ocr.settings import load_settings
from tests.support.commands import PROJECT, call, start
from tests.support.resuming import VLM_WORDS, assert_equal_at, assert_vlm_equal_to, wait_for
from tests.support.together import fit_together
from trainers.config import TrainConfig
from trainers.loop.checkpoint import directory_of

STEPS = 12
CTC_WORDS = [
    f"train.max_steps={STEPS}",
    "train.save_steps=3",
    "train.eval_steps=6",
    "train.save_total_limit=20",
    "workers=2",
    "threads_per_worker=1",
]
CASES = [("vlm", 1), ("vlm", 2), ("vlm", 3), ("ctc", 2), ("ctc", 3)]


def command(family: str, stage: int, storage: Path) -> list[str]:
    """The arguments of train.py.

    Under stage 3 small tensors are divided too, as those of a large network are.
    """
    content = json.loads((PROJECT / f"configs/deepspeed/zero{stage}.json").read_text())
    content["zero_optimization"] |= {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
    divided = [
        "engine=deepspeed",
        f"deepspeed.config={yaml.safe_dump(content, default_flow_style=True, width=10**6).strip()}",
    ]
    config, words = (
        ("configs/tiny_vlm.yaml", VLM_WORDS)
        if family == "vlm"
        else ("configs/tiny.yaml", CTC_WORDS)
    )
    return [config, *words, *divided, f"storage_path={storage}"]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Undisturbed runs without Ray."""
    torch.set_num_threads(1)
    runs = {}
    for family, stage in CASES:
        config_file, *words = command(family, stage, tmp_path_factory.mktemp(f"{family}{stage}"))
        config = load_settings(TrainConfig, PROJECT / config_file, words)
        fit_together(config)
        runs[family, stage] = config.local_run_dir
    return runs


def assert_same_run(family: str, golden: Path, run_dir: Path) -> None:
    if family == "vlm":
        assert_vlm_equal_to(golden, run_dir)
    else:
        assert_equal_at(STEPS, run_dir, golden)
        assert (run_dir / "metrics.jsonl").read_text() == (golden / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("family", "stage"), CASES)
def test_sigkill_of_a_worker_changes_no_bit(
    family: str, stage: int, golden: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    done = call(
        "train", *command(family, stage, tmp_path), LIPI_KILL_AT=f"step:8:1:{tmp_path / 'killed'}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "killed").exists()
    assert_same_run(family, golden[family, stage], next(tmp_path.glob("tiny*")))


@pytest.mark.parametrize(("family", "stage"), CASES)
def test_sigkill_of_the_driver_and_the_same_command_again_change_no_bit(
    family: str, stage: int, golden: dict[tuple[str, int], Path], tmp_path: Path
) -> None:
    words = command(family, stage, tmp_path)
    driver = start("train", *words)
    wait_for(directory_of(tmp_path / ("tiny-vlm" if family == "vlm" else "tiny"), 3))
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    done = call("train", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_run(family, golden[family, stage], next(tmp_path.glob("tiny*")))
