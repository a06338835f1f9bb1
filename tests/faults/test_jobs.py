"""`ray job submit` on a cluster of this machine: exit status, resubmission, a driver that dies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.commands import PROJECT, environment
from tests.support.resuming import assert_equal_at, wait_for
from trainers.loop.checkpoint import directory_of

RAY = str(Path(sys.executable).parent / "ray")
TINY = [
    "train.save_steps=5",
    "data.max_train_samples=300",
    "data.max_validation_samples=50",
    "model.size=small",
    "threads_per_worker=1",
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster started in the project's folder, as cluster.yaml does it, with LIPI_STORAGE set."""
    path = tmp_path_factory.mktemp("storage")
    temp = Path("/tmp/lipi-ray")
    shutil.rmtree(temp, ignore_errors=True)
    env = environment(
        LIPI_STORAGE=str(path),
        LIPI_ACCELERATOR="cpu",
        RAY_AUTH_MODE="token",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    command = [
        RAY,
        "start",
        "--head",
        "--port=6399",
        "--dashboard-host=127.0.0.1",
        "--dashboard-port=8399",
        "--dashboard-agent-listen-port=0",
        f"--temp-dir={temp}",
        "--num-cpus=2",
    ]
    if not (Path.home() / ".ray" / "auth_token").exists():
        subprocess.run(
            [RAY, "get-auth-token", "--generate"], env=env, check=True, capture_output=True
        )
    subprocess.run(command, env=env, cwd=PROJECT, check=True, capture_output=True, timeout=120)
    try:
        accept_jobs()
        yield path
    finally:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if any("/tmp/lipi-ray" in word or "6399" in word for word in words):
                process.kill()


def accept_jobs() -> None:
    """Wait for the agent that starts jobs: it comes after `ray start` ends."""
    nothing = [RAY, "job", "submit", "--address", "http://127.0.0.1:8399", "--", "true"]
    env = environment(RAY_AUTH_MODE="token")
    for _ in range(20):
        done = subprocess.run(nothing, env=env, capture_output=True, text=True, timeout=120)
        if "No available agent" not in done.stderr:
            return
        time.sleep(3)
    raise AssertionError(done.stdout + done.stderr)


def submit(
    *words: str, working_dir: Path | None = PROJECT, **env: str
) -> "subprocess.CompletedProcess[str]":
    """`ray job submit [--working-dir DIR] -- python ray_jobs/train_odia.py WORDS`."""
    where = ["--working-dir", str(working_dir)] if working_dir else []
    command = [
        RAY,
        "job",
        "submit",
        "--address",
        "http://127.0.0.1:8399",
        *where,
        "--",
        "python",
        "ray_jobs/train_odia.py",
        *words,
    ]
    return subprocess.run(
        command,
        env=environment(RAY_AUTH_MODE="token", **env),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_a_job_runs_to_its_end_and_submitted_again_says_it_is_finished(
    storage: Path, tmp_path: Path
) -> None:
    words = ("train.max_steps=20", *TINY)
    copy = tmp_path / "project"
    shutil.copytree(
        PROJECT,
        copy,
        ignore=shutil.ignore_patterns(
            ".venv", "runs", ".git", "fonts", ".mypy_cache", ".ruff_cache"
        ),
    )
    done = submit(*words, working_dir=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "odia-ctc: CER" in done.stdout
    config = copy / "configs" / "odia_ctc.yaml"
    config.write_text(config.read_text() + "# a comment\n")
    again = submit(*words, working_dir=copy)
    assert again.returncode == 0
    assert "this run is finished" in again.stdout
    bare = submit(*words, working_dir=None)
    assert bare.returncode == 0, bare.stdout + bare.stderr
    assert "this run is finished" in bare.stdout


def test_the_jobs_exit_status_is_the_runs(storage: Path) -> None:
    done = submit("train.max_stepps=20", working_dir=None)
    assert done.returncode != 0
    assert "did you mean 'max_steps'" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def undisturbed(storage: Path) -> Path:
    """The run that the stopped ones must end as."""
    done = submit("train.max_steps=60", "run_name=undisturbed", *TINY, working_dir=None)
    assert done.returncode == 0, done.stdout + done.stderr
    return storage / "runs" / "undisturbed"


def kill_the_driver() -> None:
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "run_name=killed" in line and "ray_jobs/train_odia.py" in line:
            os.kill(process.pid, signal.SIGKILL)


def stop_the_job() -> None:
    stop = [RAY, "job", "stop", "--address", "http://127.0.0.1:8399", "stopped"]
    env = environment(RAY_AUTH_MODE="token")
    subprocess.run(stop, env=env, check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize(("name", "end"), [("killed", kill_the_driver), ("stopped", stop_the_job)])
def test_a_job_that_ends_early_submitted_again_ends_with_the_same_weights(
    name: str, end: Callable[[], None], storage: Path, undisturbed: Path
) -> None:
    words = ("train.max_steps=60", f"run_name={name}", *TINY)
    command = [
        RAY,
        "job",
        "submit",
        "--no-wait",
        "--submission-id",
        name,
        "--address",
        "http://127.0.0.1:8399",
        "--",
        "python",
        "ray_jobs/train_odia.py",
        *words,
    ]
    subprocess.run(
        command,
        env=environment(RAY_AUTH_MODE="token"),
        cwd=PROJECT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    wait_for(directory_of(storage / "runs" / name, 10), seconds=180)
    end()
    time.sleep(5)
    done = submit(*words, working_dir=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "continues exactly, from step" in done.stdout
    assert_equal_at(60, storage / "runs" / name, undisturbed)
