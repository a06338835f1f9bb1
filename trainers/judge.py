"""Every checkpoint of a run and its bundle, or one bundle, judged on a data set."""

from collections.abc import Iterator
from pathlib import Path

from ocr.bundle import MANIFEST, open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import Comparison, compare, evaluate
from ocr.recognizers.base import load
from ocr.scoring import Counts
from ocr.settings import parse_settings, read_yaml
from trainers import checkpoint as checkpoints
from trainers.checkpoint import DamagedCheckpoint
from trainers.config import TrainConfig
from trainers.launch import Data


def judge(path: Path, data: str | None = None) -> Iterator[tuple[str, Counts]]:
    """(name, counts) of each; `data` defaults to what the run, or the bundle's training, was judged on."""
    if (path / MANIFEST).is_file():
        yield _judged_bundle(path, data)
        return
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: neither a run (no config.yaml) nor a bundle (no {MANIFEST})")
    config = parse_settings(TrainConfig, read_yaml(path / "config.yaml"), str(path / "config.yaml"))
    own = Data.open(config)
    judged, task = Dataset.open(data, "validation") if data else own.validation, own.task(config, "cpu")
    for step in checkpoints.steps_of(path):
        try:
            checkpoints.load_trained_state(task.network, checkpoints.verify(checkpoints.directory_of(path, step)).weights())
        except DamagedCheckpoint as problem:
            print(f"passed over {problem}", flush=True)
            continue
        yield checkpoints.directory_of(path, step).name, evaluate(task.recognizer, judged).counts
    if (path / "bundle").is_dir():
        yield "bundle", evaluate(load(path / "bundle"), judged).counts


def compared(old: Path, new: Path, data: str | None = None) -> Comparison:
    """Two bundles, or the bundles of two runs, on the same samples; `data` defaults to what the old one was judged on."""
    bundles = [path if (path / MANIFEST).is_file() else path / "bundle" for path in (old, new)]
    chosen = data or open_bundle(bundles[0]).card.get("data")
    if not chosen:
        raise UserError(f"{bundles[0]}: the bundle does not say what it was judged on; give data=FOLDER")
    judged = Dataset.open(str(chosen), "validation")
    return compare(*(evaluate(load(bundle), judged) for bundle in bundles))


def _judged_bundle(path: Path, data: str | None) -> tuple[str, Counts]:
    chosen = data or open_bundle(path).card.get("data")
    if not chosen:
        raise UserError(f"{path}: the bundle does not say what it was judged on; give data=FOLDER")
    return path.name, evaluate(load(path), Dataset.open(str(chosen), "validation")).counts
