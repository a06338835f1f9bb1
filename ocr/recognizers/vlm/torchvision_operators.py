"""Two operators that torchvision describes and, beside torch's CPU build, does not have."""

import functools
import importlib.util
from pathlib import Path

import torch

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache  # a library that is not kept takes its operators away again
def define_missing_operators() -> torch.library.Library | None:
    """Define them where torchvision's own library cannot be loaded, and return that library.

    PyPI's torchvision is built against torch for CUDA. Beside torch's CPU build its library does
    not load, and `import torchvision` fails at the two operators, which it describes though they
    are not there. vLLM and transformers' processors import torchvision but call neither; a call
    would still raise. torchvision's own CPU build (download.pytorch.org) needs none of this.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        for library in sorted(Path(spec.origin).parent.glob("_C*.so")):
            torch.ops.load_library(library)
    except OSError:
        defined = torch.library.Library("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            defined.define(name + _SIGNATURE)
        return defined
    return None
