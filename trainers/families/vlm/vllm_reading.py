"""What vLLM reads of the validation samples, in a process of the environment that has vLLM.

`python -m trainers.families.vlm.vllm_reading REQUEST RESULT`, both JSON files, is that process.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ocr.bundle import Bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError, last_line
from ocr.evaluation import Evaluation, Line, evaluate
from ocr.files import read_json
from ocr.recognizers.factory import load
from ocr.recognizers.vlm.vllm_engine import VLLM
from trainers.families.export_gate import (
    require_agreement,
    require_like_confidences,
    require_like_texts,
)
from trainers.families.vlm.task import VlmTask


def require_python(python: str | None) -> None:
    """Raise UserError where `export.vllm` is given and no program."""
    if python and not (os.access(python, os.X_OK) and Path(python).is_file()):
        raise UserError(
            f"export.vllm: {python}: expected the Python of an environment that has vLLM; make "
            "one with `make vllm`, which is .venv-vllm/bin/python"
        )


def readings_of_vllm(task: VlmTask, bundle: Bundle, expected: Evaluation) -> dict[str, Evaluation]:
    """Return what vLLM reads where `export.vllm` names its Python; GateFailed where it differs."""
    settings = task.config.export
    if not settings.vllm:
        return {}
    read = read_by_vllm(
        settings.vllm, bundle.path, task.validation_data, task.read_indices, str(task.device)
    )
    require_like_texts(VLLM, read, expected, settings.max_text_difference)
    require_agreement(VLLM, read, expected, settings.max_cer_difference)
    require_like_confidences(VLLM, read, expected, settings.max_confidence_difference)
    return {VLLM: read}


def read_by_vllm(
    python: str, bundle: Path, data: Dataset, indices: Sequence[int], device: str
) -> Evaluation:
    """Return the bundle's readings of the samples at `indices`, with vLLM as its engine.

    UserError with the process's last line where it fails.
    """
    with tempfile.TemporaryDirectory(prefix="lipi-vllm-") as folder:
        request, result = Path(folder, "request.json"), Path(folder, "result.json")
        request.write_text(
            json.dumps([str(bundle), data.location, list(indices), device]), encoding="utf-8"
        )
        done = subprocess.run(
            [python, "-m", "trainers.families.vlm.vllm_reading", str(request), str(result)],
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError(f"export.vllm: {python}: {last_line(done.stderr)}")
        return Evaluation(tuple(Line(**line) for line in read_json(result)))


def main(request: str, result: str) -> None:
    """Read as `request` says, and write one line of an Evaluation after another."""
    bundle, location, indices, device = json.loads(Path(request).read_text(encoding="utf-8"))
    read = evaluate(load(bundle, VLLM, device), Dataset(location), indices)
    lines = [asdict(line) for line in read.lines]
    Path(result).write_text(json.dumps(lines, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as mistake:
        sys.exit(str(mistake))
