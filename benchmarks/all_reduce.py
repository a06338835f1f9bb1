"""Seconds of one sum of gradients over two workers, in fp64 and in fp32 (`reduce`).

  python benchmarks/all_reduce.py [--millions 60] [--rounds 7]

Two processes of this machine sum over gloo, by the code that the engine sums with; 60 million
parameters are those of an adapter of rank 32. The two precisions take turns. Between machines the
bytes decide, which are printed too: a ring of W workers sends 2 (W - 1) / W of the buffer.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.multiprocessing
from torch import distributed

from trainers.loop.workers import Workers

WORLD = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, default=60, help="millions of parameters")
    parser.add_argument("--rounds", type=int, default=7, help="sums in each precision")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        arguments = (store, int(wanted.millions * 1e6), wanted.rounds)
        torch.multiprocessing.spawn(_work, arguments, nprocs=WORLD)


def _work(rank: int, store: Path, count: int, rounds: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD
    )
    workers, seconds = Workers.here(), dict[torch.dtype, list[float]]()
    flats = {dtype: torch.ones(count, dtype=dtype) for dtype in (torch.float64, torch.float32)}
    for number in range(rounds + 1):
        for dtype, flat in flats.items():
            flat.fill_(1.0)
            distributed.barrier()
            began = time.perf_counter()
            workers.sum(flat)
            if number:  # the first makes connections
                seconds.setdefault(dtype, []).append(time.perf_counter() - began)
    if workers.first:
        for dtype, flat in flats.items():
            name = str(dtype).replace("torch.float", "fp")
            middle, least = statistics.median(seconds[dtype]), min(seconds[dtype])
            print(
                f"{name}: {count:,} parameters, {flat.nbytes:,} bytes, {middle:.3f} s "
                f"(median of {rounds}; least {least:.3f} s)"
            )
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
