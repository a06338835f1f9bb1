"""Runs `tests/gpu/check.py` on the CPU, with small sizes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.commands import PROJECT, environment


def rehearsed(out: Path, *words: str) -> dict[str, Any]:
    """Its gpu.json, when all rows are good."""
    command = [sys.executable, "tests/gpu/check.py", "--rehearse", *words]
    env = environment(OUT=str(out), LOCAL_RANK="0")  # a launcher's, or of DeepSpeed before
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads((out / "gpu.json").read_text()))
