"""Seconds of one sum of gradients over two workers, in fp64 and in fp32 (`reduce`), and overlapped.

  python benchmarks/all_reduce.py [--millions 60] [--rounds 7]

Two processes of this machine sum over gloo, by the code that the engine sums with; 60 million
parameters are those of an adapter of rank 32. All take turns. Between machines the bytes decide,
which are printed too: a ring of W workers sends 2 (W - 1) / W of the buffer. The second table is a
backward pass through layers of these parameters and the sum of their gradients: after it in one
piece, and behind it in buckets. On one machine both want the same cores; over a slow line, as root:

  ip netns add slow && ip netns exec slow sh -c 'ip link set lo up
  tc qdisc add dev lo root tbf rate 4gbit burst 1mb latency 200ms
  python benchmarks/all_reduce.py'; ip netns del slow
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing
from torch import Tensor, distributed, nn

from trainers.loop.engines.buckets import BUCKET_BYTES, Buckets
from trainers.loop.workers import Workers

WORLD, WIDTH, ROWS = 2, 1000, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, default=60, help="millions of parameters")
    parser.add_argument("--rounds", type=int, default=7, help="sums of each kind")
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
    workers = Workers.here()
    flats = [torch.ones(count, dtype=dtype) for dtype in (torch.float64, torch.float32)]
    sums = {
        f"{str(flat.dtype)[-2:]} bits, {flat.nbytes:,} bytes": _sum(flat, workers) for flat in flats
    }
    _show(f"one sum of {count:,} parameters", _timed(sums, rounds), workers)
    layers = count // WIDTH**2
    passes = {
        "backward pass alone": _backward(layers, Workers()),
        "sum after it": _backward(layers, workers, 2**62),
        "sum behind it": _backward(layers, workers, BUCKET_BYTES),
    }
    _show(f"{layers} layers of {WIDTH:,}² parameters", _timed(passes, rounds), workers)
    distributed.destroy_process_group()


def _sum(flat: Tensor, workers: Workers) -> Callable[[], None]:
    def work() -> None:
        flat.fill_(1.0)
        workers.sum(flat)

    return work


def _backward(layers: int, workers: Workers, most_bytes: int = 2**62) -> Callable[[], None]:
    """A backward pass whose gradients are moved and summed as the engine does it."""
    network = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    parameters = list(network.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    flat = torch.zeros(sum(sizes) + 1, dtype=torch.float64)
    buckets = Buckets(flat, sizes, workers, most_bytes)
    totals, images = flat[1:].split(sizes), torch.ones(ROWS, WIDTH)
    for index, parameter in enumerate(parameters):

        def add(parameter: Tensor, index: int = index) -> None:
            assert parameter.grad is not None
            totals[index].add_(parameter.grad.reshape(-1))
            parameter.grad = None
            buckets.filled(index)

        parameter.register_post_accumulate_grad_hook(add)

    def work() -> None:
        flat.zero_()
        network(images).sum().backward()
        buckets.finish()

    return work


def _timed(kinds: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind in turns; the first round makes connections and is not counted."""
    seconds = {name: list[float]() for name in kinds}
    for number in range(rounds + 1):
        for name, work in kinds.items():
            distributed.barrier()
            began = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _show(title: str, seconds: dict[str, list[float]], workers: Workers) -> None:
    if not workers.first:
        return
    print(f"\n| {title} | median, s | least, s |\n|---|---:|---:|")
    for name, each in seconds.items():
        print(f"| {name} | {statistics.median(each):.3f} | {min(each):.3f} |")


if __name__ == "__main__":
    main()
