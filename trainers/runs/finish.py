"""The end of a run: the best checkpoint becomes a bundle, is read with, and the report says how well."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ocr.bundle import open_bundle
from ocr.dataset.prepared import told
from ocr.errors import UserError
from ocr.evaluation import Evaluation, Line
from ocr.files import read_json
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.families import card_of, export
from trainers.families.export_gate import Exported
from trainers.families.task import Checked, Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop.checkpoint import Checkpoint, DamagedCheckpoint
from trainers.loop.keyed_random import generator
from trainers.loop.loop import EXACT, Evaluations, best_step
from trainers.report import ReportLine, write_report
from trainers.report.records import median, read_records

SHOWN_LINES = 12


def is_reported(config: TrainConfig, run_dir: Path) -> bool:
    """Whether report and bundle of the run as it is now are there and whole."""
    if not (run_dir / "report.json").is_file() or not (run_dir / "report.html").is_file():
        return False
    try:
        report = read_json(run_dir / "report.json")
        open_bundle(run_dir / "bundle")
    except (UserError, ValueError):
        return False
    found = checkpoints.steps_of(run_dir)
    best = best_step(config, checkpoints.evaluations(run_dir))
    return bool(found) and report.get("step") == found[-1] and report.get("best_step") == best


def final_report(
    config: TrainConfig,
    task: Task,
    checked: Checked,
    run_dir: Path,
    fingerprints: dict[str, str],
    command: str,
) -> None:
    """Export the best checkpoint's bundle, read the validation split with it, write report.json and report.html."""
    evaluations = checkpoints.evaluations(run_dir)
    last = checkpoints.verify(checkpoints.directory_of(run_dir, checkpoints.steps_of(run_dir)[-1]))
    best = _best(config, run_dir, evaluations)
    checkpoints.load_for_export(task.network, best.weights(), config.export.initial_share)
    exported = export(
        task, run_dir / "bundle", card_of(task, [best.step], fingerprints, final=True)
    )
    evaluation = exported.evaluation
    report = {
        **_progress(config, last, best, len(task.train_ids), run_dir),
        **evaluation.counts.rates(),
        "eval_loss": evaluations[best.step]["eval_loss"],
        "validation_samples": evaluation.counts.samples,
        "parameters": sum(parameter.numel() for parameter in task.network.parameters()),
        "trained_parameters": sum(
            parameter.numel() for parameter in task.network.parameters() if parameter.requires_grad
        ),
        "before_training": evaluations.get(0, {}),
        "inference_check": _inference_check(evaluations, best.step),
        "command": command,
        "bundle": str(run_dir / "bundle"),
        **_reading(exported),
        "config": resolved(config),
        "versions": _versions(last),
        "data": _data(config, task, checked, fingerprints),
        **_as_corrections_tells(config, task, checked, evaluations),
        "confusions": [
            [expected, read, count]
            for (expected, read), count in evaluation.confusions.most_common(30)
        ],
    }
    write_report(run_dir, report, _shown_lines(config, task, evaluation))


def _inference_check(evaluations: Evaluations, best: int) -> dict[str, Any]:
    """One sample as it was read before training and by the best checkpoint; empty where the family shows none."""
    before, after = (evaluations.get(step, {}).get("inference_check", {}) for step in (0, best))
    return {**after, "reading_before": before.get("reading")} if after else {}


def _best(config: TrainConfig, run_dir: Path, evaluations: Evaluations) -> Checkpoint:
    """The best checkpoint that verifies; a damaged one is named and the next best taken."""
    there = {
        step: evaluations[step] for step in checkpoints.steps_of(run_dir) if step in evaluations
    }
    while (best := best_step(config, there)) is not None:
        try:
            return checkpoints.verify(checkpoints.directory_of(run_dir, best))
        except DamagedCheckpoint as problem:
            print(f"passed over {problem}", flush=True)
            del there[best]
    raise UserError(
        f"{run_dir}: no checkpoint with an evaluation is good; put one back from a copy, or train on by raising train.max_steps"
    )


def _progress(
    config: TrainConfig, last: Checkpoint, best: Checkpoint, train_samples: int, run_dir: Path
) -> dict[str, Any]:
    state, environment = last.state()["train"], last.state()["environment"]
    timings = read_records(run_dir / "timings.jsonl")
    inexact = [stop["exactness"] for stop in state["resumed_at"] if stop["exactness"] != EXACT]
    return {
        "status": "finished" if state["step"] >= (state["max_steps"] or 0) else "stopped early",
        "run_name": config.run_name,
        "step": last.step,
        "best_step": best.step,
        "max_steps": state["max_steps"],
        "samples_seen": state["samples"],
        "epoch": round(state["samples"] / train_samples, 2),
        "training_seconds": round(state["training_seconds"], 1),
        "samples_per_second": median([speed for _, speed in timings.series("samples_per_second")]),
        "peak_memory_mib": max((mib for _, mib in timings.series("memory_mib")), default=None),
        **{
            key: environment[key]
            for key in ("device", "precision", "workers", "threads_per_worker")
        },
        "history": {
            "resumed_at": state["resumed_at"],
            "extended_at": state["extended_at"],
            "exactness": "; ".join(inexact) or EXACT,
        },
    }


def _as_corrections_tells(
    config: TrainConfig, task: Task, checked: Checked, evaluations: Evaluations
) -> dict[str, Any]:
    """The keys of the Corrections system's training report, so that what reads those reads ours; its accuracy is our exact match."""
    run_dir, by_step = config.local_run_dir, [result for _, result in sorted(evaluations.items())]
    losses = [loss for _, loss in read_records(run_dir / "metrics.jsonl").series("loss")]
    accuracy = [result["eval_exact_match"] for result in by_step]
    return {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "samples_used": len(task.train_ids) + len(task.validation),
        "train_samples": len(task.train_ids),
        "val_samples": len(task.validation),
        "epochs": config.train.num_epochs,
        "batch_size": config.train.global_batch_size,
        "learning_rate": config.optimizer.learning_rate,
        "vocab_size": len(alphabet) if (alphabet := getattr(checked, "alphabet", None)) else None,
        "final_train_loss": losses[-1] if losses else None,
        "final_val_loss": by_step[-1]["eval_loss"] if by_step else None,
        "final_val_accuracy": accuracy[-1] if accuracy else None,
        "best_val_accuracy": max(accuracy, default=None),
        "model_path": str(run_dir / "bundle"),
        "history_summary": {
            "train_loss": losses,
            "val_loss": [result["eval_loss"] for result in by_step],
            "val_accuracy": accuracy,
        },
    }


def _reading(exported: Exported) -> dict[str, Any]:
    """What the bundle decodes with and how well, per backend, and its confidence against truth."""
    bundle, trust = exported.bundle, exported.reliability
    return {
        "decoding": bundle.decoding,
        "backends": bundle.backends,
        "default_backend": bundle.defaults,
        "paddleocr": exported.evaluation.paddle,
        **({"greedy_cer": exported.greedy.counts.cer} if exported.greedy else {}),
        "confidence": {
            "expected_calibration_error": trust.expected_error,
            "reliability": [list(part) for part in trust.bins],
        },
    }


def _versions(last: Checkpoint) -> dict[str, str]:
    environment = last.state()["environment"]
    return {
        "python": platform.python_version(),
        **{name: environment[name] for name in ("lipi-ocr", "torch", "numpy", "pillow")},
    }


def _data(
    config: TrainConfig, task: Task, checked: Checked, fingerprints: dict[str, str]
) -> dict[str, Any]:
    splits = {
        "train": {
            "path": told(config.data.train),
            "samples": len(checked.train),
            "fingerprint": fingerprints["train"],
        },
        "validation": {
            "path": told(config.data.validation or config.data.train),
            "samples": len(checked.validation),
            "fingerprint": fingerprints["validation"],
        },
    }
    held_out = task.validation_data.description().get("held_out", {})
    return {
        **splits,
        "skipped": checked.skipped,
        "unknown_characters": checked.unknown_characters,
        "held_out": held_out,
    }


def _shown_lines(config: TrainConfig, task: Task, evaluation: Evaluation) -> list[ReportLine]:
    """The lines with the highest error rates, the surest first among equals, and some drawn by the run's seed."""
    worst = sorted(evaluation.lines, key=lambda line: (-line.counts.cer, -line.confidence))[
        :SHOWN_LINES
    ]
    drawn = generator(config.train.seed, "report").permutation(len(evaluation.lines))[:SHOWN_LINES]
    return [
        *_report_lines(task, worst, "worst"),
        *_report_lines(task, [evaluation.lines[int(i)] for i in drawn], "random"),
    ]


def _report_lines(task: Task, lines: Sequence[Line], group: Any) -> list[ReportLine]:
    return [
        ReportLine(
            line.id,
            task.validation_data.image_bytes(line.index),
            line.reference,
            line.reading,
            line.confidence,
            group,
        )
        for line in lines
    ]
