"""Give a CTC bundle another geometry of lines, measured again on its own validation samples.

    python -m trainers.families.ctc.reseal BUNDLE [output=FOLDER] crop=line stretch=1.15

The weights stay. The CER of each backend and the calibration of confidences are those of the new
geometry; a bundle without samples of its own is refused.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ocr.bundle import Bundle, open_bundle, write_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import Evaluation, evaluate
from ocr.overrides import value_of
from ocr.recognizers.ctc.calibration import Calibration, fitted_with_error
from ocr.recognizers.ctc.settings import CompactSettings
from ocr.recognizers.factory import load
from ocr.replay import VALIDATION
from ocr.settings import parse_settings, with_home
from trainers.config import TrainConfig
from trainers.families.model_card import MODEL_CARD, card_text

GEOMETRY = ("crop", "stretch")


def reseal(bundle: Bundle, path: Path, changes: Mapping[str, Any]) -> Bundle:
    """Write the bundle with these values of `crop` and `stretch` to `path`; return it opened."""
    if bundle.family != "ctc" or not (bundle.path / VALIDATION).is_file():
        raise UserError(
            f"{bundle.path}: expected a CTC bundle with {VALIDATION}; "
            "put samples into it with python -m trainers.retrain.add_replay"
        )
    model = {**bundle.model, **changes}
    values = {"run_name": bundle.name, "data": {"train": "unused"}, "model": model}
    parse_settings(TrainConfig, {**values, "train": {"max_steps": 1}}, str(bundle.path))
    plain = {**bundle.decoding, "calibration": asdict(Calibration())}
    measured = _measure(replace(bundle, model=model, decoding=plain), path)
    default = measured[bundle.default_backend("cpu")]
    confidences = [line.confidence for line in default.lines]
    right = [line.reading == line.reference for line in default.lines]
    calibration, trust = fitted_with_error(confidences, right)
    card = {
        **bundle.card,
        "judged_samples": default.counts.samples,
        "confidence": {"expected_calibration_error": trust.expected_error},
    }
    made = replace(
        bundle,
        path=path,
        model=model,
        backends={backend: found.counts.cer for backend, found in measured.items()},
        decoding={**bundle.decoding, "calibration": asdict(calibration)},
        card=card,
    )
    write_bundle(made, {**bundle.files(), MODEL_CARD: card_text(made).encode()})
    return open_bundle(path)


def _measure(bundle: Bundle, path: Path) -> dict[str, Evaluation]:
    """Evaluate every backend of a bundle that is written for it and removed again."""
    data = Dataset.open(str(bundle.path), "validation")
    unchecked = replace(bundle, path=path.with_name(f"{path.name}.unchecked"))
    write_bundle(unchecked, bundle.files())
    try:
        return {
            backend: evaluate(load(unchecked.path, backend), data) for backend in bundle.backends
        }
    finally:
        shutil.rmtree(unchecked.path)


def main(words: Sequence[str]) -> None:
    """Reseal; the words as on the command line."""
    bundle, given = (
        open_bundle(Path(words[0])),
        dict(word.partition("=")[::2] for word in words[1:]),
    )
    output = Path(with_home(given.pop("output", str(bundle.path))))
    if not given or set(given) - set(GEOMETRY):
        raise UserError(
            f"expected {' and '.join(GEOMETRY)}, got {' '.join(words[1:]) or 'nothing'}"
        )
    changes = {key: value_of(CompactSettings, key, value) for key, value in given.items()}
    made = reseal(bundle, output, changes)
    rates = ", ".join(f"{backend} {cer:.2%}" for backend, cer in made.backends.items())
    print(f"{made.path}: {made.name}@{made.sha256[:12]}, {rates}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1:])
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
