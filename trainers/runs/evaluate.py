"""Error rates on a data set: of every checkpoint of a run and its bundle, or of one bundle.

A checkpoint that was evaluated already is not read with again.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr.bundle import MANIFEST, open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import Comparison, compare, evaluate
from ocr.files import read_object, write_json
from ocr.recognizers.factory import load
from ocr.recognizers.recognizer import Recognizer
from ocr.scoring import Counts
from trainers.config import config_of_run
from trainers.families.task import Task
from trainers.loop import checkpoint as checkpoints
from trainers.loop.checkpoint import Checkpoint, DamagedCheckpoint
from trainers.runs.finish import finishing_task
from trainers.runs.job import Data

HEADER = (
    f"{'':<24}{'samples':>9}{'CER':>9}{'graphemes':>11}{'WER':>9}{'exact':>9}"
    f"{'characters':>12}{'s/image':>9}"
)


@dataclass(frozen=True, slots=True)
class Result:
    """One recogniser's error rates on a data set."""

    name: str
    counts: Counts
    seconds_per_image: float

    def __str__(self) -> str:
        counts = self.counts
        return (
            f"{self.name:<24}{counts.samples:>9,}{counts.cer:>9.2%}{counts.grapheme_cer:>11.2%}"
            f"{counts.wer:>9.2%}{counts.exact_match:>9.2%}"
            f"{max(0.0, 1 - counts.cer):>12.2%}{self.seconds_per_image:>9.3f}"
        )


def evaluate_run(
    path: Path, data: str | None = None, backend: str | None = None
) -> Iterator[Result]:
    """Yield a result for each checkpoint of a run and its bundle, or for one bundle.

    `data` defaults to the validation data of the run, or of the bundle's training, `backend` to the
    bundle's own choice. A run keeps its results in `evaluations/`.
    """
    if (path / MANIFEST).is_file() or not path.exists():
        yield _result(path.name, load(path, backend), _validation_data(path, data), None)
        return
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: neither a run (no config.yaml) nor a bundle (no {MANIFEST})")
    config = config_of_run(path / "config.yaml")
    own = Data.open(config)
    task = finishing_task(config, own, path)
    validation = Dataset.open(data, "validation") if data else own.validation
    indices = None if data else task.read_indices
    name = validation.fingerprint[:12] + ("" if indices is None else f"-{len(indices)}")
    yield from _checkpoints(path, task, validation, indices, path / "evaluations" / name)
    if (path / "bundle").is_dir():
        yield _result("bundle", load(path / "bundle", backend), validation, indices)


def _checkpoints(
    run_dir: Path, task: Task, data: Dataset, indices: Sequence[int] | None, kept: Path
) -> Iterator[Result]:
    for step in checkpoints.steps_of(run_dir):
        try:
            checkpoint = checkpoints.verify_hashes(checkpoints.directory_of(run_dir, step))
        except DamagedCheckpoint as problem:
            print(f"skipped {problem}", flush=True)
            continue
        yield _kept_or_new(checkpoint, task, data, indices, kept)


def _kept_or_new(
    checkpoint: Checkpoint, task: Task, data: Dataset, indices: Sequence[int] | None, kept: Path
) -> Result:
    file = kept / f"{checkpoint.path.name}.json"
    if (known := _known(file, checkpoint.manifest_sha256)) is not None:
        return known
    checkpoints.load_trained_state(task.network, checkpoint.weights())
    result = _result(checkpoint.path.name, task.recognizer, data, indices)
    kept.mkdir(parents=True, exist_ok=True)
    values = {
        "manifest_sha256": checkpoint.manifest_sha256,
        "counts": result.counts.as_vector(),
        "seconds_per_image": result.seconds_per_image,
    }
    write_json(file, values)
    return result


def best_of(results: Sequence[Result]) -> str:
    """Return the name of the result with the lowest CER, the first of equals."""
    return min(results, key=lambda result: result.counts.cer).name


def compared(
    old: Path, new: Path, data: str | None = None, backend: str | None = None
) -> Comparison:
    """Compare two bundles, or the bundles of two runs, on the same samples.

    `data` defaults to the validation data of the old one's training. `backend` is the new one's.
    """
    bundles = [path if (path / MANIFEST).is_file() else path / "bundle" for path in (old, new)]
    validation = _validation_data(bundles[0], data)
    opened = (load(bundles[0]), load(bundles[1], backend))
    return compare(*(evaluate(recognizer, validation) for recognizer in opened))


def _validation_data(bundle: Path, data: str | None) -> Dataset:
    folder = data or open_bundle(bundle).card.get("data")
    if not folder:
        raise UserError(f"{bundle}: the bundle does not name its validation data; set data=FOLDER")
    return Dataset.open(str(folder), "validation")


def _result(
    name: str, recognizer: Recognizer, data: Dataset, indices: Sequence[int] | None
) -> Result:
    began = time.perf_counter()
    counts = evaluate(recognizer, data, indices).counts
    return Result(name, counts, (time.perf_counter() - began) / max(1, counts.samples))


def _known(file: Path, manifest_sha256: str) -> Result | None:
    """Return the result that an earlier call kept of this very checkpoint."""
    values = read_object(file)
    if values is None or values.get("manifest_sha256") != manifest_sha256:
        return None
    return Result(file.stem, Counts.from_vector(values["counts"]), values["seconds_per_image"])
