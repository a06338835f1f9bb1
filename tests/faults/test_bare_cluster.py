"""A cluster whose Python has Ray and nothing of ours: the job brings its packages."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clusters import BIN, kill_all_of
from tests.support.commands import PROJECT
from tests.support.running import free_port

ENVIRONMENT = PROJECT / "configs" / "cluster" / "runtime_env.yaml"
STORAGE_LINE = "  LIPI_STORAGE: /mnt/lipi "
PATIENCE_S = 500


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: Ray's sockets lie under it."""
    with tempfile.TemporaryDirectory(prefix="lipi-bare-", dir="/tmp") as path:
        yield Path(path)
        kill_all_of(path)


@pytest.fixture(scope="module")
def bare(folder: Path) -> dict[str, str]:
    """The environment of a shell beside the cluster."""
    python = folder / "python"
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    wanted = next(
        line for line in (PROJECT / "requirements.txt").read_text().splitlines() if "ray==" in line
    ).replace("ray==", "ray[default]==")
    pip = [python / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
    subprocess.run(pip, check=True, timeout=PATIENCE_S)
    port, dashboard = free_port(), free_port()
    env = {
        **{name: os.environ[name] for name in os.environ if name.startswith("PIP_")},
        "HOME": str(folder),
        "PATH": f"{python / 'bin'}:/usr/bin:/bin",
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    head = ["ray", "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}"]
    more = ["--dashboard-agent-listen-port=0", f"--temp-dir={folder / 'ray'}", "--num-cpus=2"]
    without = {name: value for name, value in env.items() if name != "RAY_ADDRESS"}
    subprocess.run(
        [python / "bin" / head[0], *head[1:], *more], env=without, check=True, timeout=120
    )
    return env


def submit(env: dict[str, str], environment_file: Path, *words: str) -> str:
    """`ray job submit` as docs/clusters.md writes it; repeated while Ray is still starting."""
    command = [BIN / "ray", "job", "submit", "--runtime-env", environment_file, "--", *words]
    for _ in range(20):
        done = subprocess.run(
            command, env=env, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE_S
        )
        if "No available agent" not in done.stderr:
            break
        time.sleep(3)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(1200)
def test_a_cluster_without_our_packages_gets_them_with_the_job(
    bare: dict[str, str], folder: Path
) -> None:
    written = ENVIRONMENT.read_text()
    assert STORAGE_LINE in written
    changed = written.replace(STORAGE_LINE, f"  LIPI_STORAGE: {folder / 'storage'} ")
    file = folder / "runtime_env.yaml"
    file.write_text(changed.replace("LIPI_ACCELERATOR: gpu", "LIPI_ACCELERATOR: cpu"))
    python = Path(bare["PATH"].partition(":")[0]) / "python"
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in missing.stderr
    said = submit(bare, file, "python", "ray_jobs/train.py", "configs/tiny.yaml")
    assert f"{folder / 'storage' / 'runs' / 'tiny' / 'bundle'}" in said
    image = next((PROJECT / "tests" / "pages").rglob("*.png"))
    read = submit(bare, file, "python", "ray_jobs/read.py", "odia", str(image))
    assert image.name in read
