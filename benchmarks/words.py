"""Words in an unseen face: what ten CPU minutes of training reach in each script, by best path and
with the language model, beside Tesseract.

  make faces && python benchmarks/words.py [odia bangla thai all]

Trains `configs/words/NAME.yaml` where runs/words-NAME is not finished, adding up its CPU seconds
(cpu.py), then reads the validation images with Tesseract too.
"""

import argparse
import tempfile
from pathlib import Path

import tesseract
from cpu import PROJECT, trained

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.files import read_json
from ocr.images import encode_image, open_image
from ocr.scoring import score_all
from ocr.text import normalise

LANGUAGES = {"odia": "ori", "bangla": "ben", "thai": "tha", "all": "ori+ben+tha"}


def by_tesseract(data: Dataset, languages: str) -> tuple[float, float]:
    """CER and images per CPU second, the images as words."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index:06}.png" for index in range(len(data))]
        for index, path in enumerate(paths):
            path.write_bytes(encode_image(open_image(data.image_bytes(index))))
        seconds, readings = tesseract.read(paths, languages, 8)
    counts = score_all(
        (reference, normalise(reading))
        for reference, reading in zip(data.texts, readings, strict=True)
    )
    return counts.cer, len(data) / seconds


def main() -> None:
    """Print a line a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", default=["odia", "bangla", "thai", "all"], choices=LANGUAGES
    )
    rows = []
    for name in parser.parse_args().names:
        run_dir = trained(f"configs/words/{name}.yaml", PROJECT / "runs" / f"words-{name}")
        report, spent = read_json(run_dir / "report.json"), read_json(run_dir / "cpu.json")
        bundle = open_bundle(run_dir / "bundle")
        cer, rate = by_tesseract(
            Dataset.open(str(bundle.card["data"]), "validation"), LANGUAGES[name]
        )
        rows.append(
            f"| {name} | {spent['cpu_seconds'] / 60:.1f} | {report['samples_seen']:,} | "
            f"{report['greedy_cer']:.2%} | {report['eval_cer']:.2%} | "
            f"{report['eval_exact_match']:.1%} | {bundle.backends['torch']:.2%} / "
            f"{bundle.backends['onnx-int8']:.2%} | {cer:.2%} ({rate:.0f}/s) |"
        )
    print(
        "| words | CPU minutes | images seen | CER, best path | with language model | exact | "
        "torch / int8 | Tesseract |\n|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
