"""The metrics of an evaluation that runs and sweeps may be compared by; the lower the better."""

from typing import Literal

Metric = Literal[
    "eval_cer", "eval_grapheme_cer", "eval_wer", "eval_loss", "eval_cer_teacher_forced"
]
LABELS = {
    "eval_loss": "loss",
    "eval_cer": "CER",
    "eval_cer_teacher_forced": "CER, teacher-forced (optimistic)",
    "eval_grapheme_cer": "grapheme CER",
    "eval_wer": "WER",
    "eval_exact_match": "exact",
}
VLM_ONLY = frozenset({"eval_cer_teacher_forced"})


def is_rate(metric: str) -> bool:
    """Return whether the metric is a rate, shown in per cent; a loss is not."""
    return metric != "eval_loss"
