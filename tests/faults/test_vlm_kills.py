"""SIGKILL under Ray with the vision-language model and everything that carries state.

8-bit AdamW, focal and confusion-weighted loss, kornia, dropout.
"""

import os
import signal
from pathlib import Path

import pytest
import torch

from ocr.settings import load_settings
from tests.support.commands import PROJECT, call, start
from tests.support.resuming import VLM_WORDS, assert_vlm_equal_to, wait_for
from tests.support.together import fit_together
from trainers.config import TrainConfig
from trainers.loop.checkpoint import directory_of

CONFIG = "configs/tiny_vlm.yaml"
OPTIMIZERS = ["adamw", "adamw_8bit"]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    runs = {}
    for optimizer in OPTIMIZERS:
        words = [
            *VLM_WORDS,
            f"optimizer.name={optimizer}",
            f"storage_path={tmp_path_factory.mktemp(optimizer)}",
        ]
        config = load_settings(TrainConfig, PROJECT / CONFIG, words)
        fit_together(config)
        runs[optimizer] = config.local_run_dir
    return runs


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "point",
    ["step:8:1", "before_evaluation:6:1"],
    ids=["a worker in a step", "before an evaluation"],
)
def test_sigkill_of_a_worker_changes_no_bit(
    point: str, optimizer: str, golden: dict[str, Path], tmp_path: Path
) -> None:
    marker = tmp_path / "killed"
    done = call(
        "train",
        CONFIG,
        *VLM_WORDS,
        f"optimizer.name={optimizer}",
        f"storage_path={tmp_path}",
        LIPI_KILL_AT=f"{point}:{marker}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert marker.exists()
    assert_vlm_equal_to(golden[optimizer], tmp_path / "tiny-vlm")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_sigkill_of_the_driver_and_the_same_command_again_change_no_bit(
    optimizer: str, golden: dict[str, Path], tmp_path: Path
) -> None:
    words = (CONFIG, *VLM_WORDS, f"optimizer.name={optimizer}", f"storage_path={tmp_path}")
    driver = start("train", *words)
    wait_for(directory_of(tmp_path / "tiny-vlm", 3))
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    done = call("train", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_vlm_equal_to(golden[optimizer], tmp_path / "tiny-vlm")
