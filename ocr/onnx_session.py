"""ONNX models on the CPU."""

import os
from pathlib import Path
from typing import Any


def onnx_session(model: bytes | Path) -> Any:
    """Open a model in onnxruntime on the CPU, with OMP_NUM_THREADS threads where that is set.

    Threads without work sleep: onnxruntime's own choice is to let them spin, which costs more CPU
    time than it saves (docs/results.md).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
