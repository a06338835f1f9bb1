"""The end of a run: the best checkpoint becomes a bundle, reads, and the report says how well."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ocr.bundle import open_bundle
from ocr.dataset.prepared import describe_data
from ocr.errors import UserError
from ocr.evaluation import Evaluation, Line
from ocr.files import read_object
from ocr.keyed import generator
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.config.deepspeed import DeepSpeedSettings
from trainers.families import family_of
from trainers.families.export_gate import Exported
from trainers.families.model_card import card_of
from trainers.families.task import Task, UsableSamples
from trainers.loop import checkpoint as checkpoints
from trainers.loop import faults
from trainers.loop.bucket import RunInBucket
from trainers.loop.checkpoint import Checkpoint, DamagedCheckpoint
from trainers.loop.run_state import EXACT, Evaluations, best_step
from trainers.report.corrections_system import training_report
from trainers.report.lines import ReportLine
from trainers.report.page import write_report
from trainers.report.records import median, read_records
from trainers.runs.job import Data, Job

SHOWN_LINES = 12


def is_reported(config: TrainConfig, run_dir: Path) -> bool:
    """Return whether report and bundle of the run as it is now exist and are whole."""
    if not (run_dir / "report.json").is_file() or not (run_dir / "report.html").is_file():
        return False
    report = read_object(run_dir / "report.json") or {}
    try:
        open_bundle(run_dir / "bundle")
    except (UserError, ValueError):
        return False
    steps = checkpoints.steps_of(run_dir)
    best = best_step(config, checkpoints.evaluations(run_dir))
    return bool(steps) and report.get("step") == steps[-1] and report.get("best_step") == best


def finish_here(job: Job, command: str, data: Data | None = None) -> None:
    """Export, read and report in this process; `data`: where it has been opened already."""
    data, bucket = data or Data.of_job(job), RunInBucket.of(job.config)
    if bucket:
        bucket.fetch()
    task = finishing_task(job.config, data, job.run_dir)
    final_report(job.config, task, data.usable, job.run_dir, data.fingerprints, command)
    if bucket:
        bucket.push_results()


def finishing_task(config: TrainConfig, data: Data, run_dir: Path) -> Task:
    """Return a network to read a run's checkpoints with, in the precision it was trained in.

    A vision-language model is on a GPU where this process has one.
    """
    last = checkpoints.verify_hashes(
        checkpoints.directory_of(run_dir, checkpoints.steps_of(run_dir)[-1])
    )
    wants_gpu = family_of(config).finishes_on_gpu and config.device != "cpu"
    device = "cuda" if wants_gpu and torch.cuda.is_available() else "cpu"
    # one process alone divides nothing
    undivided = {"engine": "all_reduce", "deepspeed": DeepSpeedSettings()}
    precision = last.state()["environment"]["precision"]
    return data.task(config.model_copy(update=undivided), device, precision)


def final_report(
    config: TrainConfig,
    task: Task,
    usable: UsableSamples,
    run_dir: Path,
    fingerprints: dict[str, str],
    command: str,
) -> None:
    """Export the best checkpoint, read the validation split with the bundle, write the report."""
    evaluations = checkpoints.evaluations(run_dir)
    steps = checkpoints.steps_of(run_dir)
    last = checkpoints.verify_hashes(checkpoints.directory_of(run_dir, steps[-1]))
    best = _best(config, run_dir, evaluations)
    checkpoints.load_for_export(task.network, best.weights(), config.export.initial_share)
    card = card_of(task, [best.step], fingerprints, final=True)
    exported = family_of(config).export(task, run_dir / "bundle", card)
    faults.point("before_report", last.step)
    report = {
        **_progress(config, last, best, len(task.train_ids), run_dir),
        **_measured(task, exported, evaluations, best.step),
        "command": command,
        "bundle": f"{config.address if config.in_bucket else run_dir}/bundle",
        **_reading(exported),
        "config": resolved(config),
        "versions": _versions(last),
        "data": _data(config, task, usable, fingerprints),
        **training_report(config, task, usable, evaluations),
        "confusions": [
            [expected, read, count]
            for (expected, read), count in exported.evaluation.confusions.most_common(30)
        ],
    }
    write_report(run_dir, report, _shown_lines(config, task, exported.evaluation))


def _measured(
    task: Task, exported: Exported, evaluations: Evaluations, best: int
) -> dict[str, Any]:
    """Return the bundle's error rates, the size of the network, and readings before and after."""
    counts, parameters = exported.evaluation.counts, list(task.network.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return {
        **counts.rates(),
        "eval_loss": evaluations[best]["eval_loss"],
        "validation_samples": counts.samples,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "before_training": evaluations.get(0, {}),
        "inference_check": _inference_check(evaluations, best),
    }


def _inference_check(evaluations: Evaluations, best: int) -> dict[str, Any]:
    """Return one sample with its readings before training and by the best checkpoint.

    Empty for a family without an example.
    """
    before, after = (evaluations.get(step, {}).get("inference_check", {}) for step in (0, best))
    return {**after, "reading_before": before.get("reading")} if after else {}


def _best(config: TrainConfig, run_dir: Path, evaluations: Evaluations) -> Checkpoint:
    """Return the best checkpoint that verifies; a damaged one is named and the next best taken."""
    left = {
        step: evaluations[step] for step in checkpoints.steps_of(run_dir) if step in evaluations
    }
    while (best := best_step(config, left)) is not None:
        try:
            return checkpoints.verify_hashes(checkpoints.directory_of(run_dir, best))
        except DamagedCheckpoint as problem:
            print(f"skipped {problem}", flush=True)
            del left[best]
    raise UserError(
        f"{run_dir}: no checkpoint with an evaluation is good; "
        "restore one from a copy, or train on by raising train.max_steps"
    )


def _progress(
    config: TrainConfig, last: Checkpoint, best: Checkpoint, train_samples: int, run_dir: Path
) -> dict[str, Any]:
    state, environment = last.state()["train"], last.state()["environment"]
    timings, memory = (read_records(run_dir / f"{name}.jsonl") for name in ("timings", "memory"))
    used = [*timings.series("memory_mib"), *memory.series("memory_mib")]  # the first: older runs
    inexact = [stop["exactness"] for stop in state["resumed_at"] if stop["exactness"] != EXACT]
    machine = ("device", "precision", "workers", "threads_per_worker")
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
        "peak_memory_mib": max((mib for _, mib in used), default=None),
        **{key: environment[key] for key in machine},
        "history": {
            "resumed_at": state["resumed_at"],
            "extended_at": state["extended_at"],
            "exactness": "; ".join(inexact) or EXACT,
        },
    }


def _reading(exported: Exported) -> dict[str, Any]:
    """Return the bundle's decoding, the CER of each backend, and its confidence against truth."""
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
    config: TrainConfig, task: Task, usable: UsableSamples, fingerprints: dict[str, str]
) -> dict[str, Any]:
    return {
        "train": {
            "path": describe_data(config.data.train),
            "samples": len(usable.train),
            "fingerprint": fingerprints["train"],
        },
        "validation": {
            "path": describe_data(config.data.validation or config.data.train),
            "samples": len(usable.validation),
            "fingerprint": fingerprints["validation"],
        },
        "skipped": usable.skipped,
        "unknown_characters": usable.unknown_characters,
        "held_out": task.validation_data.description().get("held_out", {}),
    }


def _shown_lines(config: TrainConfig, task: Task, evaluation: Evaluation) -> list[ReportLine]:
    """Return the lines with the highest error rates, and some picked by the run's seed.

    Among lines of equal error rates the most confident come first.
    """
    worst = sorted(evaluation.lines, key=lambda line: (-line.counts.cer, -line.confidence))
    order = generator(config.train.seed, "report").permutation(len(evaluation.lines))
    picked = [evaluation.lines[int(i)] for i in order[:SHOWN_LINES]]
    return [
        *_report_lines(task, worst[:SHOWN_LINES], "worst"),
        *_report_lines(task, picked, "random"),
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
