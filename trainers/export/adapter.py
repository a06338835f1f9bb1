"""A trained adapter becomes a bundle: in PEFT's own format, opened again and read with before it is kept."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ocr.bundle import Bundle, write_bundle
from ocr.evaluation import evaluate
from ocr.recognizers.base import load
from ocr.recognizers.ctc.calibration import reliability
from ocr.recognizers.vlm.adapter import adapter_files
from ocr.settings import resolved
from trainers.export.exported import Exported, require_agreement
from trainers.vlm_lora import VlmTask


def export_adapter(task: VlmTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Write the adapter as it is now to `path`; GateFailed, and nothing written, where the bundle opened again reads otherwise."""
    reference = evaluate(task.recognizer, task.validation_data, task.judged)
    files, unchecked = adapter_files(task.network.model), _bundle(task, path.with_name(f"{path.name}.unchecked"), math.nan, card)
    write_bundle(unchecked, files)
    try:
        read = evaluate(load(unchecked.path, device=str(task.device)), task.validation_data, task.judged)
    finally:
        shutil.rmtree(unchecked.path)
    require_agreement("torch", read, reference, task.config.export.max_cer_difference)
    trust = reliability([line.confidence for line in read.lines], [line.reading == line.reference for line in read.lines])
    figures = {"confidence": {"expected_calibration_error": trust.expected_error}, "max_cer_difference": task.config.export.max_cer_difference}
    bundle = replace(
        _bundle(task, path, read.counts.cer, card), card={**card, **figures, "versions": {name: version(name) for name in ("transformers", "peft")}}
    )
    write_bundle(bundle, files)
    return Exported(bundle, read, trust)


def _bundle(task: VlmTask, path: Path, cer: float, card: Mapping[str, Any]) -> Bundle:
    config = task.config
    model = {**resolved(config.vlm), "dtype": task.dtype, "lora": resolved(config.lora), "base_sha256": task.base.sha256}
    decoding = {**resolved(config.generation), "images": resolved(config.images)}
    return Bundle(path, "vlm", config.run_name, model, [], {"torch": cer}, {"cpu": "torch", "cuda": "torch"}, decoding, dict(card))
