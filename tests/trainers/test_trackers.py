"""Lines of metrics.jsonl reach TensorBoard, W&B and MLflow once, however often the run stops.

No run depends on them.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ocr.errors import UserError
from tests.support.resuming import die_at, run_again
from tests.support.tiny import tiny_config, tiny_context, tiny_task
from trainers.config import TrainConfig
from trainers.loop import trackers
from trainers.loop.loop import fit
from trainers.loop.trackers import Reported, Trackers
from trainers.runs.job import Job
from trainers.runs.launch import launch

SHORT = {
    "max_steps": 20,
    "logging_steps": 2,
    "save_steps": 5,
    "eval_steps": 10,
    "eval_on_start": True,
    "log_samples": False,
}


@pytest.mark.parametrize(
    ("given", "trackers"),
    [
        ("wandb", ("wandb",)),
        ("none", ()),
        (None, ()),
        (["none"], ()),
        (["mlflow", "wandb"], ("mlflow", "wandb")),
    ],
)
def test_one_tracker_needs_no_list(given: Any, trackers: tuple[str, ...], tmp_path: Path) -> None:
    assert tiny_config(tmp_path, report_to=given).report_to == trackers


def test_a_tracker_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Input should be 'tensorboard', 'wandb' or 'mlflow'"):
        tiny_config(tmp_path, report_to="comet")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "WANDB_MODE",
        "WANDB_API_KEY",
        "WANDB_PROJECT",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_EXPERIMENT_NAME",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in trackers._DEFAULTS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """metrics.jsonl of a run that is never stopped and reports to nobody."""
    torch.set_num_threads(1)
    config = tiny_config(tmp_path_factory.mktemp("undisturbed"), train=SHORT)
    run_again(config)
    return (config.local_run_dir / "metrics.jsonl").read_text()


def numbers_of(metrics: str) -> dict[int, dict[str, float]]:
    """Return the expected numbers of each line, in the precision of TensorBoard's files."""
    lines = [json.loads(line) for line in metrics.splitlines()]
    return {
        line["step"]: {
            key: as_float32(value)
            for key, value in line.items()
            if key != "step" and isinstance(value, (int, float))
        }
        for line in lines
    }


def as_float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def events(run_dir: Path) -> Iterator[Any]:
    """Every event of a run's files, in the order in which TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted((run_dir / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at + 12 <= len(data) and (
            end := at + 16 + struct.unpack_from("<Q", data, at)[0]
        ) <= len(data):  # what is torn at the end is nothing
            yield Event.FromString(data[at + 12 : end - 4])
            at = end


def shown_by_tensorboard(run_dir: Path) -> list[tuple[int, dict[str, float]]]:
    """Return steps and numbers after the purges of sessions' starts; a repeated step twice."""
    shown: list[tuple[int, dict[str, float]]] = []
    for event in events(run_dir):
        if event.HasField("session_log"):
            shown = [(step, numbers) for step, numbers in shown if step < event.step]
        elif event.HasField("summary"):
            shown.append(
                (event.step, {value.tag: value.simple_value for value in event.summary.value})
            )
    return shown


def assert_each_step_once(run_dir: Path, metrics: str) -> None:
    shown = shown_by_tensorboard(run_dir)
    assert [step for step, _ in shown] == sorted({step for step, _ in shown})
    assert f"tensorboard --logdir {run_dir}/tensorboard" in (run_dir / "timings.jsonl").read_text()
    assert dict(shown) == numbers_of(metrics)


def told_of_trackers(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "timings.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("event") == "tracker"]


def test_a_run_stopped_and_resumed_has_each_step_once_and_the_same_metrics(
    undisturbed: str, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, train=SHORT, report_to=["tensorboard"])
    for step in (3, 4, 10, 13, 20):
        run_again(config, stop_after=step)
    assert (config.local_run_dir / "metrics.jsonl").read_text() == undisturbed
    assert_each_step_once(config.local_run_dir, undisturbed)
    steps = [event.step for event in events(config.local_run_dir) if event.HasField("summary")]
    assert steps == sorted(set(steps)), "nothing was sent again"
    assert not told_of_trackers(config.local_run_dir)


@pytest.mark.parametrize("step", [4, 9, 15])
def test_what_a_dead_run_had_sent_after_its_checkpoint_is_purged(
    step: int, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, train=SHORT, report_to=["tensorboard"])
    die_at("step", step, config, monkeypatch)
    newest = max((config.local_run_dir / "tensorboard").iterdir())
    newest.write_bytes(newest.read_bytes()[:-3])  # and the last event was not whole
    run_again(config)
    assert (config.local_run_dir / "metrics.jsonl").read_text() == undisturbed
    assert_each_step_once(config.local_run_dir, undisturbed)


def test_a_run_that_begins_anew_purges_what_one_before_it_sent(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, report_to=["tensorboard"])
    for loss in (1.0, 2.0):
        there = Trackers(Reported(config, tmp_path, "run", -1), "", print)
        there.send({"step": 3, "loss": loss})
        there.close()
    assert shown_by_tensorboard(tmp_path) == [(3, {"loss": 2.0})]


def test_a_tracker_asked_for_later_gets_the_lines_before_too(
    undisturbed: str, tmp_path: Path
) -> None:
    run_again(tiny_config(tmp_path, train=SHORT), stop_after=10)
    config = tiny_config(tmp_path, train=SHORT, report_to=["tensorboard"])
    run_again(config)
    assert_each_step_once(config.local_run_dir, undisturbed)


def test_only_numbers_are_sent(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, report_to=["tensorboard"])
    there = Trackers(Reported(config, tmp_path, "run", -1), "", print)
    there.send(
        {
            "step": 3,
            "loss": None,
            "eval_cer": 0.5,
            "samples": 36,
            "good": True,
            "note": "x",
            "inference_check": {"reading": "କ"},
        }
    )
    there.close()
    assert shown_by_tensorboard(tmp_path) == [(3, {"eval_cer": 0.5, "samples": 36.0})]


class Failing:
    """A tracker whose server goes away after a few lines."""

    def __init__(self, reported: Reported) -> None:
        self.last = reported.step

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if step > 6 and numbers:
            raise ConnectionError("the server is gone\nand a long story")

    def close(self) -> None:
        raise AssertionError("never asked for again")


def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on(
    undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers._KINDS, "wandb", Failing)
    config = tiny_config(tmp_path, train=SHORT, report_to=["wandb", "tensorboard"])
    run_again(config)
    (told,) = told_of_trackers(config.local_run_dir)
    assert (
        told["text"] == "report_to wandb failed, the run continues without it: "
        "ConnectionError: the server is gone"
    )
    assert told["step"] == 8
    assert (config.local_run_dir / "metrics.jsonl").read_text() == undisturbed
    assert_each_step_once(config.local_run_dir, undisturbed)


def test_a_tracker_that_cannot_be_opened_is_named_and_the_run_goes_on(
    undisturbed: str, tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, train=SHORT, report_to=["tensorboard"])
    config.local_run_dir.mkdir()
    (config.local_run_dir / "tensorboard").write_text("a file where a folder should be")
    run_again(config)
    (told,) = told_of_trackers(config.local_run_dir)
    assert "report_to tensorboard failed" in told["text"]
    assert (config.local_run_dir / "metrics.jsonl").read_text() == undisturbed


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(job: Job) -> None:
        raise AssertionError("no run is begun")

    monkeypatch.setitem(trackers._PACKAGES, "wandb", "wandb_that_nobody_has")
    monkeypatch.setitem(trackers._PACKAGES, "mlflow", "mlruns")
    (tmp_path / "mlruns").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError,
        match=r"wandb_that_nobody_has and mlruns not installed; "
        r"pip install wandb_that_nobody_has mlruns",
    ):
        launch(
            tiny_config(tmp_path / "runs", report_to=["mlflow", "tensorboard", "wandb"]),
            never,
            "the command",
        )
    assert not (tmp_path / "runs").exists()


def test_runs_of_the_same_settings_are_told_apart_by_their_names(tmp_path: Path) -> None:
    one, other = (
        Reported(tiny_config(tmp_path, run_name=name), tmp_path, "identity", -1)
        for name in ("one", "other")
    )
    assert one.key != other.key
    assert (
        one.key
        == Reported(one.config.model_copy(update={"workers": 2}), tmp_path, "identity", 40).key
    )


def stopped_and_resumed(config: TrainConfig) -> None:
    for step in (4, 13, 20):
        fit(config, tiny_task(config), tiny_context(config), stop_after=step)


@pytest.mark.filterwarnings("ignore")  # its own
def test_mlflow_has_each_step_once_in_one_run(undisturbed: str, tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow").MlflowClient
    config = tiny_config(tmp_path, train=SHORT, report_to=["mlflow"])
    stopped_and_resumed(config)
    assert not told_of_trackers(config.local_run_dir)
    there = client(tracking_uri=f"sqlite:///{config.local_run_dir / 'mlflow.db'}")
    (run,) = there.search_runs([there.get_experiment_by_name("lipi").experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["optimizer.learning_rate"]) == (
        "tiny",
        "FINISHED",
        "0.001",
    )
    for key in ("loss", "samples", "eval_cer"):
        found = [
            (metric.step, as_float32(metric.value))
            for metric in there.get_metric_history(run.info.run_id, key)
        ]
        assert found == [
            (step, numbers[key])
            for step, numbers in numbers_of(undisturbed).items()
            if key in numbers
        ]


@pytest.mark.filterwarnings("ignore")  # its own
def test_wandb_offline_has_the_whole_run_in_one_folder(undisturbed: str, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    config = tiny_config(tmp_path, train=SHORT, report_to=["wandb"])
    stopped_and_resumed(config)
    assert not told_of_trackers(config.local_run_dir)
    (folder,) = (config.local_run_dir / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    found = {line.pop("_step"): line for line in history_of(file)}
    expected = numbers_of(undisturbed)
    assert list(found) == list(expected)
    assert {
        step: {key: as_float32(line[key]) for key in expected[step]} for step, line in found.items()
    } == expected


def history_of(file: Path) -> list[dict[str, Any]]:
    """Return the logged lines of a W&B file: LevelDB's log, 32 KiB blocks, heads of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part, lines = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record, part = Record.FromString(part), b""
            if record.HasField("history"):
                lines.append(
                    {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
    return lines
