"""What a training run prints: the lines of its log files, as plain text where there is no bar."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainers.loop.progress import Progress

LOGGED: dict[str, Any] = {"step": 30, "samples": 480, "epoch": 1.25, "loss": 3.5371}
EVALUATED = {"eval_loss": 3.2145, "eval_cer": 0.4325, "eval_exact_match": 0.125}


def printed(run_dir: Path, capsys: pytest.CaptureFixture[str], *lines: dict[str, Any]) -> str:
    """What is printed of lines that are written while the run is followed."""
    with Progress(run_dir, 100):
        (run_dir / "timings.jsonl").write_text('{"step": 30, "samples_per_second": 18.4}\n')
        written = "".join(json.dumps(line) + "\n" for line in lines)
        (run_dir / "metrics.jsonl").write_text(written)
    return capsys.readouterr().out


def test_a_line_has_epoch_and_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(tmp_path, capsys, LOGGED) == (
        "step     30  epoch 1.25  loss 3.537  18 samples/s\n"
    )


def test_an_evaluation_has_validation_loss_and_accuracy_of_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(tmp_path, capsys, LOGGED | EVALUATED) == (
        "step     30  epoch 1.25  loss 3.537  18 samples/s  "
        "validation loss 3.215  CER 43.25%  exact 12.5%\n"
    )


def test_error_rates_of_training_batches_say_that_they_are_teacher_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = LOGGED | {"train_cer_teacher_forced": 0.0712, "train_wer_teacher_forced": 0.2}
    assert "18 samples/s  training CER 7.12% (teacher-forced)\n" in printed(tmp_path, capsys, line)
