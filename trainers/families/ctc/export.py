"""A trained CTC network becomes a bundle: decoding sealed, ONNX backends exported, and each backend read with before any is kept.

The gate: every backend, opened from the written files as serving opens them, reads the validation split; one whose CER differs from
the live network's by more than `export.max_cer_difference` fails the export, which names it and the first sample that reads differently.
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
from ocr.recognizers.ctc.calibration import Calibration, cross_fitted, reliability
from ocr.recognizers.ctc.decoding import Decoder
from ocr.recognizers.ctc.language_model import CharacterModel
from ocr.recognizers.ctc.lexicon import Lexicon
from ocr.recognizers.ctc.onnx import to_int8, to_onnx, with_half_weights
from ocr.recognizers.ctc.reading import CtcRecognizer, sealed_decoder
from ocr.recognizers.factory import load
from ocr.settings import resolved
from trainers.config import TrainConfig
from trainers.families.ctc.task import CtcTask, initial_bundle
from trainers.families.export_gate import Exported, require_agreement
from trainers.families.model_card import MODEL_CARD, card_text


def export_bundle(task: CtcTask, path: Path, name: str, card: Mapping[str, Any]) -> Exported:
    """Write the network as it is now to `path`; GateFailed, and nothing written, where a backend does not agree with it."""
    settings = task.config.export
    if settings.half_weights:
        _round_weights(task)
    decoder, files = _decoder(task), _files(task)
    live = CtcRecognizer(task.recognizer.backend, decoder, task.config.ctc, name)
    reference = evaluate(live, task.validation_data, task.validation)
    probabilities, right = (
        [line.confidence for line in reference.lines],
        [line.reading == line.reference for line in reference.lines],
    )
    decoder = replace(decoder, calibration=Calibration.fitted(probabilities, right))
    trust = reliability(cross_fitted(probabilities, right), right)
    unchecked = _bundle(
        task,
        path.with_name(f"{path.name}.unchecked"),
        name,
        decoder,
        {backend: math.nan for backend in settings.backends},
        card,
    )
    write_bundle(unchecked, _sealed(files, decoder))
    try:
        read: dict[str, Evaluation] = {
            backend: evaluate(load(unchecked.path, backend), task.validation_data, task.validation)
            for backend in settings.backends
        }
    finally:
        shutil.rmtree(unchecked.path)
    for backend, found in read.items():
        require_agreement(f"backend {backend}", found, reference, settings.max_cer_difference)
    rates = {backend: found.counts.cer for backend, found in read.items()}
    figures = {
        "judged_samples": reference.counts.samples,
        "live_cer": reference.counts.cer,
        "confidence": {"expected_calibration_error": trust.expected_error},
        "max_cer_difference": settings.max_cer_difference,
        "versions": {name: version(name) for name in ("torch", "onnxruntime")},
    }
    bundle = _bundle(task, path, name, decoder, rates, {**card, **figures})
    write_bundle(bundle, {**_sealed(files, decoder), MODEL_CARD: card_text(bundle).encode()})
    greedy = (
        reference
        if decoder.settings.method == "greedy"
        else evaluate(task.recognizer, task.validation_data, task.validation)
    )
    return Exported(bundle, read[bundle.default_backend("cpu")], trust, greedy)


def _round_weights(task: CtcTask) -> None:
    """To fp16 and back, so that what is measured is what the half-precision file holds."""
    with torch.no_grad():
        for value in task.network.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())


def _decoder(task: CtcTask) -> Decoder:
    """Decoding by the run's settings; language model and lexicon know the training texts alone."""
    settings = task.config.decoding
    texts = task.train_texts
    model = _language_model(task.config, texts) if settings.uses_language_model else None
    entries = (
        Dictionary.open(Path(str(task.config.ctc.character_dict_path))).entries
        if settings.method == "closed"
        else ()
    )
    return Decoder(
        task.alphabet,
        settings,
        model,
        Lexicon.of_texts(texts) if settings.lexicon else None,
        entries,
    )


def _language_model(config: TrainConfig, texts: Sequence[str]) -> CharacterModel:
    """Of the training texts, added to the one that came with `train.init_from` where their orders agree."""
    settings = config.decoding
    base = (
        sealed_decoder(initial_bundle(config.train.init_from)).language_model
        if config.train.init_from
        else None
    )
    if base is not None and base.order == settings.lm_order:
        return base.with_texts(texts, settings.lm_least_count)
    return CharacterModel.trained(texts, settings.lm_order, settings.lm_least_count)


def _files(task: CtcTask) -> dict[str, bytes]:
    """Weights and ONNX models as `export` asks for them."""
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
            chosen = range(min(len(task.train_ids), settings.calibration_images))
            images = [
                open_image(
                    task.train_image(index), task.recognizer.image_mode, where=task.train_ids[index]
                )
                for index in chosen
            ]
            files["onnx-int8.onnx"] = with_half_weights(to_int8(exported, images, task.config.ctc))
    return files


def _sealed(files: Mapping[str, bytes], decoder: Decoder) -> dict[str, bytes]:
    asked = {LANGUAGE_MODEL: decoder.language_model, LEXICON: decoder.lexicon}
    entries = {ENTRIES: "\n".join(decoder.entries).encode()} if decoder.entries else {}
    return {
        **files,
        **entries,
        **{name: thing.to_bytes() for name, thing in asked.items() if thing is not None},
    }


def _bundle(
    task: CtcTask,
    path: Path,
    name: str,
    decoder: Decoder,
    rates: dict[str, float],
    card: Mapping[str, Any],
) -> Bundle:
    model = {**resolved(task.config.ctc), "alphabet": None, "character_dict_path": None}
    decoding = {**resolved(decoder.settings), "calibration": asdict(decoder.calibration)}
    fastest = next(backend for backend in ("onnx-int8", "onnx-fp32", "torch") if backend in rates)
    return Bundle(
        path,
        "ctc",
        name,
        model,
        list(task.alphabet.characters),
        rates,
        {"cpu": fastest, "cuda": "torch"},
        decoding,
        dict(card),
    )
