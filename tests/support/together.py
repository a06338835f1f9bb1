"""Several workers without Ray: processes that meet over gloo, as Ray Train's do."""

import tempfile
from pathlib import Path

import torch
import torch.multiprocessing
from torch import distributed

from tests.support.tiny import tiny_context, tiny_task
from trainers.config import TrainConfig
from trainers.loop.loop import fit
from trainers.loop.workers import Workers


def fit_together(config: TrainConfig, stop_after: int | None = None) -> None:
    """Train `config` with its number of workers, each a process of one thread."""
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(
            _work, (config, stop_after, Path(meeting) / "store"), nprocs=config.worker_count
        )


def _work(rank: int, config: TrainConfig, stop_after: int | None, store: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=config.worker_count
    )
    try:
        fit(config, tiny_task(config), tiny_context(config, Workers.here()), stop_after)
        distributed.barrier()  # none leaves while another still talks
    finally:
        distributed.destroy_process_group()
