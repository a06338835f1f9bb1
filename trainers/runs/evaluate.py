"""Every checkpoint of a run and its bundle, or one bundle, judged on a data set; what was judged already is not read again."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr.bundle import MANIFEST, open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import Comparison, compare, evaluate
from ocr.files import read_json, write_json
from ocr.recognizers.factory import load
from ocr.recognizers.recognizer import Recognizer
from ocr.scoring import Counts
from ocr.settings import parse_settings, read_yaml
from trainers.config import TrainConfig
from trainers.loop import checkpoint as checkpoints
from trainers.loop.checkpoint import DamagedCheckpoint
from trainers.runs.launch import Data, finishing_task

HEADER = f"{'':<24}{'samples':>9}{'CER':>9}{'graphemes':>11}{'WER':>9}{'exact':>9}{'characters':>12}{'s/image':>9}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One recogniser on a data set."""

    name: str
    counts: Counts
    seconds_per_image: float

    def __str__(self) -> str:
        counts = self.counts
        rates = f"{counts.samples:>9,}{counts.cer:>9.2%}{counts.grapheme_cer:>11.2%}{counts.wer:>9.2%}{counts.exact_match:>9.2%}"
        return (
            f"{self.name:<24}{rates}{max(0.0, 1 - counts.cer):>12.2%}{self.seconds_per_image:>9.3f}"
        )


def judge(path: Path, data: str | None = None) -> Iterator[Verdict]:
    """A verdict for each; `data` defaults to what the run, or the bundle's training, was judged on. A run's verdicts are kept in `evaluations/`."""
    if (path / MANIFEST).is_file() or not path.exists():
        yield _judged(path.name, load(path), _judging_data(path, data), None)
        return
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: neither a run (no config.yaml) nor a bundle (no {MANIFEST})")
    config = parse_settings(TrainConfig, read_yaml(path / "config.yaml"), str(path / "config.yaml"))
    own = Data.open(config)
    task = finishing_task(config, own, path)
    judged, chosen = (
        (Dataset.open(data, "validation"), None) if data else (own.validation, task.judged)
    )
    kept = (
        path
        / "evaluations"
        / f"{judged.fingerprint[:12]}{'' if chosen is None else f'-{len(chosen)}'}"
    )
    for step in checkpoints.steps_of(path):
        try:
            found = checkpoints.verify_hashes(checkpoints.directory_of(path, step))
        except DamagedCheckpoint as problem:
            print(f"passed over {problem}", flush=True)
            continue
        file = kept / f"{found.path.name}.json"
        if (known := _known(file, found.manifest_sha256)) is not None:
            yield known
            continue
        checkpoints.load_trained_state(task.network, found.weights())
        verdict = _judged(found.path.name, task.recognizer, judged, chosen)
        kept.mkdir(parents=True, exist_ok=True)
        write_json(
            file,
            {
                "manifest_sha256": found.manifest_sha256,
                "counts": verdict.counts.as_vector(),
                "seconds_per_image": verdict.seconds_per_image,
            },
        )
        yield verdict
    if (path / "bundle").is_dir():
        yield _judged("bundle", load(path / "bundle"), judged, chosen)


def best_of(verdicts: Sequence[Verdict]) -> str:
    """The name of the one with the lowest CER, the first of equals."""
    return min(verdicts, key=lambda verdict: verdict.counts.cer).name


def compared(old: Path, new: Path, data: str | None = None) -> Comparison:
    """Two bundles, or the bundles of two runs, on the same samples; `data` defaults to what the old one was judged on."""
    bundles = [path if (path / MANIFEST).is_file() else path / "bundle" for path in (old, new)]
    judged = _judging_data(bundles[0], data)
    return compare(*(evaluate(load(bundle), judged) for bundle in bundles))


def _judging_data(bundle: Path, data: str | None) -> Dataset:
    chosen = data or open_bundle(bundle).card.get("data")
    if not chosen:
        raise UserError(
            f"{bundle}: the bundle does not say what it was judged on; give data=FOLDER"
        )
    return Dataset.open(str(chosen), "validation")


def _judged(
    name: str, recognizer: Recognizer, data: Dataset, indices: Sequence[int] | None
) -> Verdict:
    began = time.perf_counter()
    counts = evaluate(recognizer, data, indices).counts
    return Verdict(name, counts, (time.perf_counter() - began) / max(1, counts.samples))


def _known(file: Path, manifest_sha256: str) -> Verdict | None:
    """What an earlier call found of this very checkpoint."""
    if not file.is_file():
        return None
    values = read_json(file)
    if values["manifest_sha256"] != manifest_sha256:
        return None
    return Verdict(file.stem, Counts.from_vector(values["counts"]), values["seconds_per_image"])
