"""On a cluster a vision-language run ends as a task that Ray places as it places a worker."""

import json
from pathlib import Path

import pytest

from tests.support.clusters import cluster
from tests.support.commands import call

WORDS = [
    "train.max_steps=2",
    "train.save_steps=1",
    "train.eval_steps=2",
    "train.eval_on_start=false",
    "optimizer.warmup_steps=1",
    "data.max_train_samples=32",
    "data.max_validation_samples=4",
    "model.base_steps=0",
    "device=cpu",
    "workers=auto",
    "resources_per_worker={special: 1}",
]


@pytest.mark.long
def test_the_end_is_a_task_with_a_workers_resources_and_a_killed_one_is_run_again(
    tmp_path: Path,
) -> None:
    killed = tmp_path / "killed"
    options = ("--num-cpus=2", '--resources={"special": 1}')
    with cluster(6473, *options, LIPI_KILL_AT=f"before_report:2:0:{killed}") as env:
        words = ("configs/tiny_vlm.yaml", f"storage_path={tmp_path}", *WORDS)
        done = call("train", *words, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        run = tmp_path / "tiny-vlm"
        assert killed.exists(), "the process of the task, not the driver, came to the end"
        assert "export and report: as a task with CPU=1 special=1" in done.stdout
        report = json.loads((run / "report.json").read_text())
        assert report["status"] == "finished"
        assert (run / "bundle").is_dir()
        again = call("train", *words, **env)
        assert again.returncode == 0
        assert "this run is finished" in again.stdout
