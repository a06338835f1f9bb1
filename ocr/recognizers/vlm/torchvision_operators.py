"""Lets an environment import PyPI's torchvision beside torch's CPU build.

python -m ocr.recognizers.vlm.torchvision_operators      # `make vllm` runs it in vLLM's environment

PyPI's torchvision is built against torch for CUDA. Beside the CPU build its library does not load,
and `import torchvision` fails at two operators, which it describes though they are not there. vLLM
and transformers' processors import torchvision but call neither operator; a call would still raise.
vLLM imports them in processes of its own too, so the package itself is amended. torchvision's own
CPU build (download.pytorch.org) needs none of this.
"""

import importlib.util
from pathlib import Path

import torch

_DEFINED = '''"""Amended by lipi-ocr: its library does not load here, and its import needs these."""
import torch

_of_lipi = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _of_lipi.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

'''


def amend_torchvision() -> Path | None:
    """Define the operators at the top of the installed torchvision where its library fails to load.

    Return the changed file; None where nothing had to be changed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    before = file.read_text(encoding="utf-8")
    if before.startswith(_DEFINED):
        return None
    try:
        for library in sorted(file.parent.glob("_C*.so")):
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError:
        file.write_text(_DEFINED + before, encoding="utf-8")
        return file
    return None


if __name__ == "__main__":
    if amended := amend_torchvision():
        print(f"{amended}: nms and qnms defined, since its library does not load beside this torch")
