"""Retraining from the command to the verdict; the same command again resumes.

It divides the corrections, trains with replay, evaluates, and decides.

OUTPUT/data/…             corrections as data sets: all, and each division
OUTPUT/start              in a bucket: the recogniser that is trained further, for every worker
OUTPUT/fold_1 …           where corrections are few: runs that hold out one part of them in turn
OUTPUT/NAME-rN            the candidate's run
OUTPUT/bundle             the candidate, with the samples that a next retraining replays
OUTPUT/progress.json, verdict.json

OUTPUT is a folder, or an address in a bucket.
"""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr.bundle import MANIFEST, Bundle, open_bundle
from ocr.dataset.prepared import open_training
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import Evaluation, compare
from ocr.files import shown
from ocr.mirror import Mirror, fetched, local_folder
from ocr.place import Place
from ocr.replay import replay_files, replay_of, rows_file, with_replay
from ocr.retraining import FIRST, PROGRESS_FILE, REFUSED, VERDICT_FILE, RetrainConfig
from ocr.sources.settings import CorrectionsSettings
from ocr.storage import inside
from trainers.config import TrainConfig
from trainers.retrain.first import first_of, id_of
from trainers.retrain.gate import Verdict, decide, joined
from trainers.retrain.run_config import RunData, Start, require_family, run_config
from trainers.retrain.work import Work
from trainers.runs.launch import launch

# settings that do not make another retraining
_NOT_HASHED = {
    "bundle",
    "corrections",
    "storage_path",
    "output",
    "workers",
    "threads_per_worker",
    "device",
    "save_steps",
}


@dataclass(frozen=True, slots=True)
class Retrained:
    """A finished retraining, as verdict.json has it; `output` is a folder or an address."""

    output: str
    values: dict[str, Any]

    def __str__(self) -> str:
        values, bundle = self.values, _shown(f"{self.output}/bundle")
        verdict = values["verdict"]
        next_step = f"; serve it: python ray_jobs/deploy.py {bundle}"
        return (
            f"{verdict}: {'; '.join(values['why'])}\n"
            f"{values['candidate']}: {verdict}, {bundle}{'' if verdict == REFUSED else next_step}"
        )


def retrain(config: RetrainConfig, work: Work, command: str) -> Retrained:
    """Retrain to the verdict; `config.storage_path` is absolute, or an address.

    Raises UserError before any training where bundle, corrections or replay are wrong.
    """
    bundle = open_bundle(config.bundle)
    require_family(bundle)
    replay = replay_of(bundle, config.replay)
    for split in ("train", "validation"):
        Dataset.open(replay, split)
    corrected = _corrections(config)
    name = config.output or f"retrain-{bundle.name}-{_hash(config, bundle, corrected)}"
    place = Place(inside(config.storage_path, name))
    if verdict := place.json(VERDICT_FILE):
        print(f"{_shown(place.path)}: this retraining is finished", flush=True)
        return Retrained(place.path, verdict)
    start = Start(bundle, _within_reach(bundle, config.bundle, place))
    if replay == str(bundle.path):
        replay = start.address
    _write_data(place, "corrections", "train", corrected, range(len(corrected)))
    # from here on as every worker finds them
    validation = Dataset.open(replay, "validation")
    corrected = Dataset.open(place / "data/corrections", "train")
    return _Retraining(config, work, command, start, replay, validation, corrected, place).finish()


def _corrections(config: RetrainConfig) -> Dataset:
    """Return the corrections; UserError where they are too few."""
    folder = fetched(config.corrections, exactly=("",))
    source = CorrectionsSettings(format="corrections", path=str(folder))
    corrected = open_training((source,), config.max_skipped)
    if len(corrected) < config.min_samples:
        raise UserError(
            f"{config.corrections}: {len(corrected)} usable corrections; "
            f"at least {config.min_samples} are needed"
        )
    return corrected


def _within_reach(bundle: Bundle, given: str, place: Place) -> str:
    """Return where every worker finds the bundle; in a bucket that is a copy beside the runs."""
    if place.is_local or "://" in given:
        return given if "://" in given else str(bundle.path)
    copy = Place(place / "start")
    if not copy.has(MANIFEST) or copy.read(MANIFEST) != (bundle.path / MANIFEST).read_bytes():
        Mirror(copy, bundle.path).push_whole(MANIFEST)
    return copy.path


def _write_data(
    place: Place, name: str, split: str, corrected: Dataset, chosen: Sequence[int]
) -> None:
    """Write corrections as a split of a data set, unless it is there."""
    file = f"data/{name}/{split}.parquet"
    if not place.has(file):
        place.write(file, rows_file(corrected, chosen))


def _shown(address: str) -> str:
    return address if "://" in address else shown(Path(address))


def _hash(config: RetrainConfig, bundle: Bundle, corrected: Dataset) -> str:
    """Return eight digits of the hash of all that makes this retraining another one."""
    settings = config.model_dump(exclude=_NOT_HASHED)
    values = [bundle.sha256, corrected.fingerprint, settings]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def divided(groups: Sequence[str], parts: int) -> list[list[int]]:
    """Return the indices of samples in parts of similar size, no group in two of them.

    Where there are fewer groups than parts, each sample is a group of its own.
    """
    keys = list(groups)
    if len(set(groups)) < parts:
        keys = [f"{group}/{index}" for index, group in enumerate(groups)]
    divided: list[list[int]] = [[] for _ in range(parts)]
    for key in sorted(
        set(keys), key=lambda key: (-keys.count(key), hashlib.sha256(key.encode()).digest())
    ):
        min(divided, key=len).extend(index for index, other in enumerate(keys) if other == key)
    return [sorted(part) for part in divided]


@dataclass(frozen=True, slots=True)
class _Retraining:
    config: RetrainConfig
    work: Work
    command: str
    start: Start
    replay: str
    validation: Dataset
    corrected: Dataset
    place: Place

    def finish(self) -> Retrained:
        """Train what is left, decide, and write the verdict."""
        began = time.time()
        parts = self._parts()
        held_out = max(map(len, parts)) >= self.config.least_held_out
        print(f"{len(self.corrected):,} corrections: {self._way(parts, held_out)}", flush=True)
        way = self._by_held_out if held_out else self._by_folds
        candidate, indices, new = way(parts)
        last = 2 if held_out else len(parts) + 2
        self._write_progress("evaluating", (last, last), None)
        old = self.start.address
        before, after = (self._read(bundle, self.validation) for bundle in (old, candidate))
        first = first_of(self.start.bundle, before)
        verdict = decide(
            compare(before, after),
            compare(self._read(old, self.corrected, indices), new),
            held_out,
            self.config.gate.max_forgetting,
            None if first.model == id_of(self.start.bundle) else compare(first.on(before), after),
        )
        files = {**replay_files(self.replay), FIRST: first.to_bytes()}
        made = self._written(candidate, files)
        return self._finished(verdict, made, first.model, time.time() - began)

    def _parts(self) -> list[list[int]]:
        """Return the corrections in parts; those of one page stay together."""
        groups = [
            self.corrected.group(index).get("page", self.corrected.ids[index])
            for index in range(len(self.corrected))
        ]
        return divided(groups, self.config.folds)

    def _by_held_out(self, parts: list[list[int]]) -> tuple[str, list[int], Evaluation]:
        """Train the candidate without the largest part, and read that part with it."""
        out = max(parts, key=len)
        rest = [index for index in range(len(self.corrected)) if index not in set(out)]
        candidate = self._candidate(rest, (1, 2))
        return candidate, out, self._read(candidate, self.corrected, out)

    def _by_folds(self, parts: list[list[int]]) -> tuple[str, list[int], Evaluation]:
        """Read each part with a run that was trained without it; train the candidate on all."""
        read = [self._of_a_fold(number, part, parts) for number, part in enumerate(parts, start=1)]
        everything = list(range(len(self.corrected)))
        candidate = self._candidate(everything, (len(parts) + 1, len(parts) + 2))
        return candidate, [index for part in parts for index in part], joined(read)

    @property
    def _name(self) -> str:
        """The candidate's name: base-odia → base-odia-r1 → base-odia-r2."""
        name = self.start.bundle.name
        repeated = re.fullmatch(r"(.*)-r(\d+)", name)
        return f"{repeated[1]}-r{int(repeated[2]) + 1}" if repeated else f"{name}-r1"

    def _way(self, parts: list[list[int]], held_out: bool) -> str:
        if held_out:
            return f"{max(map(len, parts))} are held out for the evaluation"
        return (
            f"too few to hold {self.config.least_held_out} out, so each of {len(parts)} parts is "
            "held out in turn, and a run with all of them makes the candidate"
        )

    def _of_a_fold(self, number: int, part: list[int], parts: list[list[int]]) -> Evaluation:
        rest = sorted(index for other in parts if other is not part for index in other)
        name = f"fold_{number}"
        _write_data(self.place, name, "validation", self.corrected, part)
        bundle = self._trained(name, rest, self.place / f"data/{name}", (number, len(parts) + 2))
        return self._read(bundle, self.corrected, part)

    def _candidate(self, chosen: list[int], part: tuple[int, int]) -> str:
        """Return the bundle of the candidate's run; merged where the one before is."""
        bundle = self._trained(self._name, chosen, self.replay, part)
        return self.work.merged(self._config_of(self._name)) if self.start.is_merged else bundle

    def _trained(self, name: str, chosen: list[int], validation: str, part: tuple[int, int]) -> str:
        """Return the bundle of a run on these corrections."""
        _write_data(self.place, name, "train", self.corrected, chosen)
        config = self._config_of(name, validation)
        self._write_progress(name, part, name)
        launch(config, self.work.train, self.command, self.work.finish)
        return f"{config.address}/bundle"

    def _config_of(self, name: str, validation: str | None = None) -> TrainConfig:
        data = RunData(self.place / f"data/{name}", validation or self.replay, self.replay)
        return run_config(self.config, self.start, name, self.place.path, data)

    def _read(self, bundle: str, data: Dataset, indices: Sequence[int] | None = None) -> Evaluation:
        return self.work.read(self._config_of(self._name), bundle, data, indices)

    def _written(self, candidate: str, files: dict[str, bytes]) -> Bundle:
        """Return the candidate's bundle with these files in it, where the retraining lives."""
        folder = local_folder(self.place.path) / "bundle"
        made = with_replay(open_bundle(candidate), folder, files)
        if not self.place.is_local:
            Mirror(Place(self.place / "bundle"), folder).push_whole(MANIFEST)
        return made

    def _write_progress(self, phase: str, part: tuple[int, int], run: str | None) -> None:
        """Write progress.json and a line on the terminal."""
        progress = {
            "phase": phase,
            "part": part[0],
            "parts": part[1],
            "run": run,
            "max_steps": self.config.max_steps,
            "num_epochs": self.config.num_epochs,
        }
        self.place.write_json(PROGRESS_FILE, progress)
        print(f"part {part[0]} of {part[1]}: {phase}", flush=True)

    def _finished(self, verdict: Verdict, made: Bundle, first: str, seconds: float) -> Retrained:
        values = {
            **verdict.as_json(),
            "candidate": id_of(made),
            "of": id_of(self.start.bundle),
            "first": first,
            "samples": len(self.corrected),
            "replay": self.replay,
            "seconds": round(seconds, 1),
            "command": self.command,
        }
        self.place.write_json(VERDICT_FILE, values)
        return Retrained(self.place.path, values)
