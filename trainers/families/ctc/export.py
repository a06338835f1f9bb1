"""A trained CTC network becomes a bundle, with its decoding sealed and its ONNX backends exported.

The gate: every backend, opened from the written files as serving opens them, reads the validation
split. Where a CER differs from the live network's by more than `export.max_cer_difference`, the
export fails and names the backend and the first sample that it reads differently.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ocr.bundle import ENTRIES, LANGUAGE_MODEL, LEXICON, WEIGHTS, Bundle, weights_file, write_bundle
from ocr.dictionary import Dictionary
from ocr.evaluation import Evaluation, evaluate
from ocr.images import open_image
from ocr.recognizers.ctc.calibration import Reliability, fitted_with_error
from ocr.recognizers.ctc.decoding import Decoder
from ocr.recognizers.ctc.language_model import CharacterModel
from ocr.recognizers.ctc.lexicon import Lexicon
from ocr.recognizers.ctc.onnx import to_int8, to_onnx, with_half_weights
from ocr.recognizers.ctc.reading import CtcRecognizer, sealed_decoder
from ocr.recognizers.factory import load
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.families.ctc.initial import initial_bundle
from trainers.families.ctc.task import CtcTask
from trainers.families.export_gate import Exported, require_agreement
from trainers.families.model_card import MODEL_CARD, card_text


def export_bundle(task: CtcTask, path: Path, card: Mapping[str, Any]) -> Exported:
    """Write the network as it is now to `path`.

    Raises GateFailed, and writes nothing, where a backend does not agree with the network.
    """
    settings = task.config.export
    if settings.half_weights:
        _round_weights(task)
    _say(f"the bundle's files and decoding, from {len(task.train_texts):,} training texts")
    decoder, files = _decoder(task), _files(task)
    _say(f"{len(task.validation):,} validation samples, read by the trained network")
    live = CtcRecognizer(task.recognizer.backend, decoder, task.config.ctc, task.config.run_name)
    reference = evaluate(live, task.validation_data, task.validation)
    decoder, trust = _calibrated(decoder, reference)
    files = _sealed(files, decoder)
    read = _read_by_each_backend(task, path, decoder, files, card)
    for backend, evaluation in read.items():
        require_agreement(f"backend {backend}", evaluation, reference, settings.max_cer_difference)
    rates = {backend: evaluation.counts.cer for backend, evaluation in read.items()}
    figures = {
        "judged_samples": reference.counts.samples,
        "live_cer": reference.counts.cer,
        "confidence": {"expected_calibration_error": trust.expected_error},
        "max_cer_difference": settings.max_cer_difference,
        "versions": {name: version(name) for name in ("torch", "onnxruntime")},
    }
    bundle = _bundle(task, path, decoder, rates, {**card, **figures})
    write_bundle(bundle, {**files, MODEL_CARD: card_text(bundle).encode()})
    is_greedy = decoder.settings.method == "greedy"
    greedy = (
        reference if is_greedy else evaluate(task.recognizer, task.validation_data, task.validation)
    )
    return Exported(bundle, read[bundle.default_backend("cpu")], trust, greedy)


def _say(doing: str) -> None:
    print(f"export: {doing}", flush=True)


def _calibrated(decoder: Decoder, reference: Evaluation) -> tuple[Decoder, Reliability]:
    """Return the decoder with confidences fitted to the readings, and their cross-fitted error."""
    confidences = [line.confidence for line in reference.lines]
    right = [line.reading == line.reference for line in reference.lines]
    calibration, trust = fitted_with_error(confidences, right)
    return replace(decoder, calibration=calibration), trust


def _read_by_each_backend(
    task: CtcTask, path: Path, decoder: Decoder, files: dict[str, bytes], card: Mapping[str, Any]
) -> dict[str, Evaluation]:
    """Read the validation split with every backend, opened from files that are then removed."""
    backends = task.config.export.backends
    unchecked_path = path.with_name(f"{path.name}.unchecked")
    unknown: dict[str, float] = {backend: math.nan for backend in backends}
    unchecked = _bundle(task, unchecked_path, decoder, unknown, card)
    write_bundle(unchecked, files)
    read: dict[str, Evaluation] = {}
    try:
        for backend in backends:
            _say(f"the same samples, read by the bundle with {backend}")
            recognizer = load(unchecked.path, backend)
            read[backend] = evaluate(recognizer, task.validation_data, task.validation)
        return read
    finally:
        shutil.rmtree(unchecked.path)


def _round_weights(task: CtcTask) -> None:
    """Round weights to fp16 and back: what is measured is what the half-precision file holds."""
    with torch.no_grad():
        for value in task.network.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())


def _decoder(task: CtcTask) -> Decoder:
    """Return the decoder of the settings; its language model and lexicon are of training texts."""
    settings = task.config.decoding
    texts = task.train_texts
    model = _language_model(task.config, texts) if settings.uses_language_model else None
    lexicon = Lexicon.of_texts(texts) if settings.lexicon else None
    entries: tuple[str, ...] = ()
    if settings.method == "closed":
        entries = Dictionary.open(Path(str(task.config.ctc.character_dict_path))).entries
    return Decoder(task.alphabet, settings, model, lexicon, entries)


def _language_model(config: TrainConfig, texts: Sequence[str]) -> CharacterModel:
    """Return a model of the training texts.

    They are added to the model of `train.init_from` where the orders of both are equal.
    """
    settings, init_from = config.decoding, config.train.init_from
    initial = sealed_decoder(initial_bundle(init_from)).language_model if init_from else None
    if initial is not None and initial.order == settings.lm_order:
        return initial.with_texts(texts, settings.lm_least_count)
    return CharacterModel.trained(texts, settings.lm_order, settings.lm_least_count)


def _files(task: CtcTask) -> dict[str, bytes]:
    """Return the weights and the ONNX models that `export.backends` names."""
    settings, weights = task.config.export, task.network.state_dict()
    if settings.half_weights:
        weights = {
            name: value.half() if value.is_floating_point() else value
            for name, value in weights.items()
        }
    files = {WEIGHTS: weights_file(weights)}
    if any(backend.startswith("onnx") for backend in settings.backends):
        exported = to_onnx(task.network, task.config.ctc)
        if "onnx-fp32" in settings.backends:
            files["onnx-fp32.onnx"] = exported
        if "onnx-int8" in settings.backends:
            files["onnx-int8.onnx"] = with_half_weights(_quantised(task, exported))
    return files


def _quantised(task: CtcTask, exported: bytes) -> bytes:
    """Return the ONNX model in int8, its ranges measured on training images."""
    count = min(len(task.train), task.config.export.calibration_images)
    images = [
        open_image(
            task.train.image_bytes(index), task.recognizer.image_mode, where=task.train_ids[index]
        )
        for index in range(count)
    ]
    return to_int8(exported, images, task.config.ctc)


def _sealed(files: Mapping[str, bytes], decoder: Decoder) -> dict[str, bytes]:
    """Return the files with those that the decoder needs."""
    parts = {LANGUAGE_MODEL: decoder.language_model, LEXICON: decoder.lexicon}
    entries = {ENTRIES: "\n".join(decoder.entries).encode()} if decoder.entries else {}
    sealed = {name: part.to_bytes() for name, part in parts.items() if part is not None}
    return {**files, **entries, **sealed}


def _bundle(
    task: CtcTask, path: Path, decoder: Decoder, rates: dict[str, float], card: Mapping[str, Any]
) -> Bundle:
    model = {**resolved(task.config.ctc), "alphabet": None, "character_dict_path": None}
    decoding = {**resolved(decoder.settings), "calibration": asdict(decoder.calibration)}
    fastest = next(backend for backend in ("onnx-int8", "onnx-fp32", "torch") if backend in rates)
    return Bundle(
        path,
        "ctc",
        task.config.run_name,
        model,
        list(task.alphabet.characters),
        rates,
        {"cpu": fastest, "cuda": "torch"},
        decoding,
        dict(card),
    )
