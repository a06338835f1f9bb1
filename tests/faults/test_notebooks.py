"""The notebooks, cell after cell, but for the one that installs; on a machine without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import PROJECT

NOTEBOOKS = sorted((PROJECT / "docs" / "notebooks").glob("*.ipynb"))


def as_script(notebook: Path) -> str:
    """The cells as one script; `!command {name}` becomes a call of the shell."""
    lines = ["import subprocess"]
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code" or "install" in cell["metadata"].get("tags", []):
            continue
        for line in "".join(cell["source"]).splitlines():
            call = f"subprocess.run(f{line[1:]!r}, shell=True, check=True)"
            lines.append(call if line.startswith("!") else line)
    return "\n".join(lines)


def test_both_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["finetune_vlm", "read_and_correct"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(notebook: Path, tmp_path: Path) -> None:
    for name in ("ray_jobs", "configs"):
        (tmp_path / name).symlink_to(PROJECT / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", as_script(notebook)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "before," in done.stdout or "words read wrong" in done.stdout
