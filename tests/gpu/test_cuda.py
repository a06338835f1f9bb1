"""On a GPU, with deterministic kernels, a resumed run is the run that never stopped. Needs CUDA; `make test` leaves it out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainers.test_resume import assert_same
from tests.trainers.tiny import tiny_config, tiny_place
from trainers.checkpoint import directory_of, verify
from trainers.config import TrainConfig
from trainers.launch import Data
from trainers.loop import fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def run(config: TrainConfig, bf16: bool, stop_after: int | None = None) -> None:
    place = tiny_place(config)
    place = replace(place, device="cuda", bf16=bf16, environment={**place.environment, "device": "cuda"})
    fit(config, Data.open(config).task(config, "cuda"), place, stop_after)


@pytest.mark.parametrize("bf16", [False, True])
def test_stopped_and_resumed_on_a_gpu_is_equal_to_the_last_bit(bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    through, stopped = (tiny_config(tmp_path / name) for name in ("through", "stopped"))
    run(through, bf16)
    for step in (1, 7, 17, 30):
        run(stopped, bf16, step)
    run(stopped, bf16)
    ours, theirs = (verify(directory_of(config.local_run_dir, 40)) for config in (stopped, through))
    assert_same(ours.weights(), theirs.weights())
    assert_same(ours.optimizer(), theirs.optimizer())
