"""Sums in buckets are the sums of the whole, in whatever order workers fill them."""

import random
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed

from trainers.loop.engines.buckets import Buckets
from trainers.loop.workers import Workers

SIZES = [7, 300, 1, 40, 900, 3, 250]
WORLD, STEPS = 3, 3


@pytest.mark.parametrize("head", [0, 5])
@pytest.mark.parametrize("most_bytes", [8, 8 * 300, 8 * 10_000])
def test_each_value_is_summed_once(tmp_path: Path, head: int, most_bytes: int) -> None:
    arguments = (tmp_path, head, most_bytes)
    torch.multiprocessing.spawn(_sums, arguments, nprocs=WORLD)
    for rank in range(WORLD):
        ours, whole = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(ours, whole, rtol=1e-15, atol=0)


def _sums(rank: int, folder: Path, head: int, most_bytes: int) -> None:
    """Three steps; the second worker has no micro-batch, the third misses a parameter."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    workers = Workers.here()
    flat = torch.zeros(head + sum(SIZES), dtype=torch.float64)
    buckets = Buckets(flat, SIZES, workers, most_bytes)
    ours, whole = list[Tensor](), list[Tensor]()
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(10 * step + rank)
        values = torch.rand(len(flat), generator=generator, dtype=torch.float64)
        flat.copy_(values)
        order = list(range(len(SIZES)))
        random.Random(rank + step).shuffle(order)
        for index in [order, [], order[1:]][rank]:
            buckets.filled(index)
        buckets.finish()
        ours.append(flat.clone())
        whole.append(workers.sum(values))
    torch.save((torch.stack(ours), torch.stack(whole)), folder / f"{rank}.pt")
    distributed.barrier()  # none leaves while another still talks
    distributed.destroy_process_group()
