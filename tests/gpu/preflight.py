"""The chip, the packages, and the two rates that everything else is measured against."""

import importlib.metadata
import time
from collections.abc import Callable, Iterator

import torch

from tests.gpu.phase import Found, Setup

LIBRARIES = ("transformers", "ray", "deepspeed", "bitsandbytes", "peft", "kornia")


def rows(setup: Setup) -> Iterator[Found]:
    """Chip and memory, versions, bf16 product rate, copy rate."""
    yield Found("chip", _chip(setup))
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    yield Found("versions", ", ".join([f"torch {torch.__version__}", *versions]))
    yield Found("bf16 product", f"{product_rate(setup) / 1e12:,.1f} TFLOP/s")
    yield Found("copy", f"{copy_rate(setup) / 1e9:,.0f} GB/s, read and written")


def product_rate(setup: Setup) -> float:
    """Operations a second of a square bf16 matrix product: the limit that MFU is a share of."""
    side = setup.size(8192, 256)
    left, right = (torch.randn(side, side, device=setup.device, dtype=torch.bfloat16) for _ in "ab")
    return 2 * side**3 / _seconds(lambda: left @ right, setup)


def copy_rate(setup: Setup) -> float:
    """Bytes a second, read and written, of a copy within the device's memory."""
    source = torch.empty(setup.size(2**30, 2**22), dtype=torch.uint8, device=setup.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _seconds(lambda: target.copy_(source), setup)


def synchronise(setup: Setup) -> None:
    """Wait for the GPU."""
    if setup.device == "cuda":
        torch.cuda.synchronize()


def _seconds(work: Callable[[], object], setup: Setup) -> float:
    """The mean of ten, after three."""
    for _ in range(3):
        work()
    synchronise(setup)
    began = time.perf_counter()
    for _ in range(10):
        work()
    synchronise(setup)
    return (time.perf_counter() - began) / 10


def _chip(setup: Setup) -> str:
    if setup.device == "cpu":
        return f"the CPU, {torch.get_num_threads()} threads (a rehearsal)"
    about = torch.cuda.get_device_properties(0)
    memory_gib = about.total_memory / 2**30
    return f"{about.name}, {memory_gib:.1f} GiB, {about.multi_processor_count} multiprocessors"
