"""The recognisers that ship on rendered images that training never saw, beside Tesseract's models.

  make faces && python benchmarks/recognisers.py [odia bangla thai] [--bundle SCRIPT=PATH …]

Words: those that `configs/words/NAME.yaml` holds out, in the face that it holds out, clean and as
that config degrades them. Lines: those that `configs/bases/NAME.yaml` holds out, in the face that
it holds out, printed and scanned in simulation: blurred, thresholded, faded, compressed, with
neighbours and rules (its settings say how often). By best path, with the language model, and by
Tesseract; images per CPU second of one thread, the int8 model against Tesseract, start-up included
in both.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tesseract

from ocr.bundle import open_bundle
from ocr.dataset.prepared import open_training
from ocr.dataset.read import Dataset
from ocr.images import encode_image, open_image
from ocr.recognizers.ctc.reading import CtcRecognizer
from ocr.recognizers.factory import load
from ocr.scoring import score_all
from ocr.settings import load_settings
from ocr.sources.settings import SourceSettings
from ocr.text import normalise
from trainers.config import TrainConfig

PROJECT = Path(__file__).resolve().parent.parent
LANGUAGES = {"odia": "ori", "bangla": "ben", "thai": "tha"}
KINDS = (("clean words", "words", 8), ("words", "words", 8), ("lines", "bases", 7))
MAX_SKIPPED = 0.9  # the face that is held out may lack digits, Latin and punctuation


def held_out(config: str, clean: bool) -> Dataset:
    """The validation split of a config, rendered where it is not yet."""
    train = load_settings(TrainConfig, PROJECT / config, []).data.train
    assert not isinstance(train, str)
    sources: Sequence[SourceSettings] = [
        source.model_copy(update={"split": "train", **({"clean_share": 1.0} if clean else {})})
        for source in train
        if source.split == "validation"
    ]
    return open_training(sources, MAX_SKIPPED)


def by_tesseract(data: Dataset, language: str, page_mode: int) -> tuple[list[str], float]:
    """Readings, and images per CPU second."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index:06}.png" for index in range(len(data))]
        for index, path in enumerate(paths):
            path.write_bytes(encode_image(open_image(data.image_bytes(index))))
        seconds, readings = tesseract.read(paths, language, page_mode)
    return [normalise(text) for text in readings], len(data) / seconds


def by_bundle(data: Dataset, bundle: Path, greedy: bool) -> tuple[list[str], float]:
    """Readings of the int8 model, and images per CPU second, loading included."""
    began = time.process_time()
    recognizer = load(bundle, "onnx-int8")
    assert isinstance(recognizer, CtcRecognizer)
    if greedy:
        settings = recognizer.decoder.settings.model_copy(update={"method": "greedy"})
        recognizer.decoder = replace(recognizer.decoder, settings=settings)
    images = [open_image(data.image_bytes(index), "L") for index in range(len(data))]
    readings = [reading.text for reading in recognizer.read(images)]
    return readings, len(data) / (time.process_time() - began)


def main() -> None:
    """Print a line a script and kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=[*LANGUAGES])
    parser.add_argument("--bundle", nargs="*", default=[], metavar="SCRIPT=PATH")
    options = parser.parse_args()
    bundles = dict(word.split("=", 1) for word in options.bundle)
    print(
        "| images | number | best path | with language model | exact | Tesseract | exact "
        "| images per CPU second, ours / Tesseract |\n|---|---|---|---|---|---|---|---|"
    )
    for name in options.names:
        for kind, config, page_mode in KINDS:
            data = held_out(f"configs/{config}/{name}.yaml", kind.startswith("clean"))
            path = open_bundle(Path(bundles.get(name, name))).path
            reads = [
                by_bundle(data, path, greedy=True),
                by_bundle(data, path, greedy=False),
                by_tesseract(data, LANGUAGES[name], page_mode),
            ]
            best, ours, theirs = (
                score_all(zip(data.texts, texts, strict=True)) for texts, _ in reads
            )
            print(
                f"| {name} {kind} | {len(data)} | {best.cer:.2%} | {ours.cer:.2%} | "
                f"{ours.exact_match:.1%} | {theirs.cer:.2%} | {theirs.exact_match:.1%} | "
                f"{reads[1][1]:.0f} / {reads[2][1]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
