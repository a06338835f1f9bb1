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


def run(config: TrainConfig, precision: str, stop_after: int | None = None) -> None:
    place = tiny_place(config)
    place = replace(place, device="cuda", precision=precision, environment={**place.environment, "device": "cuda"})
    fit(config, Data.open(config).task(config, "cuda"), place, stop_after)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_and_resumed_on_a_gpu_is_equal_to_the_last_bit(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    through, stopped = (tiny_config(tmp_path / name) for name in ("through", "stopped"))
    run(through, precision)
    for step in (1, 7, 17, 30):
        run(stopped, precision, step)
    run(stopped, precision)
    ours, theirs = (verify(directory_of(config.local_run_dir, 40)) for config in (stopped, through))
    assert_same(ours.weights(), theirs.weights())
    assert_same(ours.optimizer(), theirs.optimizer())
