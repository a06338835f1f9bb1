"""Runs one measurement of benchmarks/ctc.py in the environment at hand.

Python run.py MODULE REQUEST RESULT, both JSON files.
"""

import importlib
import importlib.util
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

TORCHVISION_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def main(module: str, request: Path, result: Path) -> None:
    """Measure with one thread and write what was found."""
    torch.set_num_threads(1)
    if importlib.util.find_spec("torchvision"):
        library = torch.library.Library(
            "torchvision",
            "DEF",
            # torchvision's wheel is built for CUDA: its own declarations do not load beside torch
            # for
            # CPUs
        )
        for operator in TORCHVISION_OPERATORS:
            library.define(operator)
    from meter import Request

    found = importlib.import_module(module).measure(
        Request(**json.loads(request.read_text(encoding="utf-8")))
    )
    result.write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
