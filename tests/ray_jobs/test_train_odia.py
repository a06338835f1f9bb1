"""Which config train_odia.py takes when none is given, and what a config that needs a GPU says
where there is none.
"""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from ocr.errors import UserError
from ocr.files import write_json
from ocr.settings import load_settings
from ray_jobs import train_odia
from tests.support.commands import PROJECT, assert_refused, call
from tests.support.tiny import tiny_vlm_config
from trainers import ray_cluster
from trainers.config import TrainConfig
from trainers.ray_cluster import uses_gpu
from trainers.runs import gpus as accelerator
from trainers.runs.gpus import find_gpu, require_gpu


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIPI_ACCELERATOR", "RAY_ADDRESS", "LIPI_STORAGE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def devices(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """A machine with these in /dev."""
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    monkeypatch.setattr(accelerator, "Path", lambda _: folder)


def run_of(
    kind: str,
    storage: Path,
    name: str,
    saved_at: float,
    *,
    step: int = 50,
    reported: int | None = None,
) -> None:
    """A run's folder as a stopped run leaves it, with a report where it came to an end."""
    checkpoint = storage / name / f"checkpoint_{step:06d}"
    checkpoint.mkdir(parents=True)
    write_json(checkpoint / "manifest.json", {"step": step})
    (storage / name / "config.yaml").write_text(yaml.safe_dump({"model": {"kind": kind}}))
    if reported is not None:
        write_json(storage / name / "report.json", {"step": reported})
    os.utime(checkpoint, (saved_at, saved_at))


def chosen(storage: Path, *overrides: str) -> tuple[str, str]:
    config, why = train_odia.choose([f"storage_path={storage}", *overrides])
    return config.name, why


def test_a_machine_with_a_gpu_trains_the_vision_language_model_and_one_without_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        devices(patched, tmp_path / "without", "nvidiactl", "null")
        assert chosen(tmp_path) == ("odia_ctc.yaml", "this machine has no GPU")
    devices(monkeypatch, tmp_path / "with", "nvidiactl", "nvidia0")
    assert chosen(tmp_path) == ("odia.yaml", "this machine has a GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert find_gpu()[0]
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert find_gpu() == (False, "this machine has no GPU that CUDA_VISIBLE_DEVICES shows")


def test_what_lipi_accelerator_says_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nobody.invalid:1")
    monkeypatch.setenv("LIPI_ACCELERATOR", "gpu")
    assert chosen(tmp_path) == ("odia.yaml", "LIPI_ACCELERATOR=gpu")
    monkeypatch.setenv("LIPI_ACCELERATOR", "cpu")
    assert chosen(tmp_path) == ("odia_ctc.yaml", "LIPI_ACCELERATOR=cpu")
    monkeypatch.setenv("LIPI_ACCELERATOR", "tpu")
    with pytest.raises(UserError, match="LIPI_ACCELERATOR: expected gpu or cpu, got 'tpu'"):
        chosen(tmp_path)


@pytest.mark.parametrize(("gpus", "config"), [(2.0, "odia.yaml"), (0.0, "odia_ctc.yaml")])
def test_a_cluster_is_asked_for_its_gpus(
    gpus: float, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray_cluster, "gpus_of_the_cluster", lambda: gpus)
    assert chosen(tmp_path) == (config, f"the Ray cluster at 10.0.0.1:6379 has {gpus:g} GPUs")


def test_the_cluster_of_cluster_yaml_says_that_gpus_will_come() -> None:
    cluster = yaml.safe_load((PROJECT / "cluster.yaml").read_text())
    starts = [
        command
        for kind in ("head", "worker")
        for command in cluster[f"{kind}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("LIPI_ACCELERATOR=gpu" in command for command in starts)


def test_an_unfinished_run_is_continued_whatever_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_ACCELERATOR", "gpu")
    run_of("compact", tmp_path, "odia-ctc", saved_at=1000)
    assert chosen(tmp_path) == (
        "odia_ctc.yaml",
        f"its run is unfinished and resumes ({tmp_path / 'odia-ctc'})",
    )
    monkeypatch.setenv("LIPI_ACCELERATOR", "cpu")
    run_of("vlm", tmp_path, "odia-vlm", saved_at=2000)
    assert chosen(tmp_path)[0] == "odia.yaml", "the newer of two"
    os.utime(tmp_path / "odia-ctc" / "checkpoint_000050", (3000, 3000))
    assert chosen(tmp_path)[0] == "odia_ctc.yaml"


def test_a_finished_run_is_not_continued_and_a_longer_one_than_its_report_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_ACCELERATOR", "gpu")
    run_of("compact", tmp_path, "odia-ctc", saved_at=1000, step=2500, reported=2500)
    assert chosen(tmp_path)[0] == "odia.yaml"
    run_of("compact", tmp_path, "odia-ctc", saved_at=2000, step=2750)
    assert chosen(tmp_path)[0] == "odia_ctc.yaml"


def test_a_run_is_found_under_the_name_that_is_given_and_is_its_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_ACCELERATOR", "gpu")
    run_of("compact", tmp_path, "mine", saved_at=1000)
    assert chosen(tmp_path)[0] == "odia.yaml"
    assert chosen(tmp_path, "run_name=mine")[0] == "odia_ctc.yaml"
    assert chosen(tmp_path, "run_name=mine", "model.size=small")[0] == "odia_ctc.yaml", (
        "settings that the other config does not know"
    )
    (tmp_path / "mine" / "config.yaml").unlink()
    assert chosen(tmp_path, "run_name=mine")[0] == "odia.yaml"


def test_it_says_which_config_and_why_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Namespace] = []
    monkeypatch.setattr(train_odia.train, "main", given.append)
    monkeypatch.setenv("LIPI_ACCELERATOR", "cpu")
    words = [f"storage_path={tmp_path}", "train.max_steps=3"]
    train_odia.main(Namespace(words=words))
    assert capsys.readouterr().out == "configs/odia_ctc.yaml: LIPI_ACCELERATOR=cpu\n"
    train_odia.main(Namespace(words=["mine.yaml", *words]))
    assert capsys.readouterr().out == ""
    assert given == [
        Namespace(config=PROJECT / "configs" / "odia_ctc.yaml", overrides=words),
        Namespace(config=Path("mine.yaml"), overrides=words),
    ]


def test_a_mistake_is_answered_after_the_choice(tmp_path: Path) -> None:
    refused = call(
        "train_odia", "train.max_stepps=20", f"storage_path={tmp_path}", LIPI_ACCELERATOR="cpu"
    )
    assert refused.stdout == "configs/odia_ctc.yaml: LIPI_ACCELERATOR=cpu\n"
    assert_refused(refused, "did you mean 'max_steps'?")


def test_a_vision_language_model_without_a_gpu_is_refused_before_anything_is_built(
    tmp_path: Path,
) -> None:
    refused = call(
        "train_odia",
        "configs/odia.yaml",
        f"storage_path={tmp_path}",
        LIPI_ACCELERATOR="cpu",
        HF_HUB_OFFLINE="1",
    )
    assert_refused(
        refused,
        "model.kind=vlm",
        "needs a GPU, and LIPI_ACCELERATOR=cpu",
        "configs/tiny_vlm.yaml",
        "device=cpu",
    )
    assert not list(tmp_path.iterdir())


def test_a_cpu_that_is_asked_for_and_the_tiny_model_need_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPI_ACCELERATOR", "cpu")
    odia = PROJECT / "configs" / "odia.yaml"
    with pytest.raises(UserError, match="needs a GPU"):
        require_gpu(load_settings(TrainConfig, odia))
    require_gpu(load_settings(TrainConfig, odia, ["device=cpu"]))
    require_gpu(tiny_vlm_config(tmp_path))
    monkeypatch.setenv("LIPI_ACCELERATOR", "gpu")
    require_gpu(load_settings(TrainConfig, odia))


def test_a_cluster_at_rest_is_asked_for_gpus_and_too_few_of_them_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odia = load_settings(TrainConfig, PROJECT / "configs" / "odia.yaml", ["workers=2"])
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: {"GPU": 1.0})
    with pytest.raises(UserError, match="device: auto: expected 2 GPUs, Ray has 1"):
        uses_gpu(odia)
    assert not uses_gpu(odia.model_copy(update={"device": "cpu"}))
    assert uses_gpu(odia.model_copy(update={"workers": 1}))
    monkeypatch.setenv("LIPI_ACCELERATOR", "gpu")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray_cluster.ray, "cluster_resources", lambda: {"CPU": 4.0})
    assert uses_gpu(odia)
    assert not uses_gpu(odia.model_copy(update={"device": "cpu"}))
