"""The keys of the Corrections system's training report, for programs that read those reports.

Its accuracy is our exact match.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from trainers.config import TrainConfig
from trainers.families.task import Task, UsableSamples
from trainers.report.records import read_records


def training_report(
    config: TrainConfig,
    task: Task,
    usable: UsableSamples,
    evaluations: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the run's values under the names of the Corrections system."""
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
        "vocab_size": usable.vocabulary_size,
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
