"""Retraining from the command to the verdict; the same command again resumes.

It divides the corrections, trains with replay, evaluates, and decides.

OUTPUT/data/…             corrections as data sets: all, and each division
OUTPUT/fold_1 …           where corrections are few: runs that hold out one part of them in turn
OUTPUT/NAME-rN            the candidate's run
OUTPUT/bundle             the candidate, with the samples that a next retraining replays
OUTPUT/progress.json, verdict.json
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocr.bundle import Bundle, open_bundle
from ocr.dataset.prepared import open_training
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.evaluation import Evaluation, compare, evaluate
from ocr.files import read_object, shown, write_atomically, write_json
from ocr.recognizers.factory import load
from ocr.replay import replay_files, replay_of, rows_file, with_replay
from ocr.retraining import PROGRESS_FILE, REFUSED, VERDICT_FILE, RetrainConfig
from ocr.settings import parse_settings
from ocr.sources.settings import CorrectionsSettings
from trainers.config import TrainConfig
from trainers.retrain.first import FIRST, first_of, id_of
from trainers.retrain.gate import Verdict, decide, joined
from trainers.runs.job import Job
from trainers.runs.launch import launch

Train = Callable[[Job], None]
# settings that do not make another retraining
_NOT_HASHED = {
    "bundle",
    "corrections",
    "storage_path",
    "output",
    "workers",
    "threads_per_worker",
    "save_steps",
}


@dataclass(frozen=True, slots=True)
class Retrained:
    """A finished retraining, as verdict.json has it."""

    output: Path
    values: dict[str, Any]

    def __str__(self) -> str:
        values, bundle = self.values, shown(self.output / "bundle")
        verdict = values["verdict"]
        next_step = f"; serve it: python ray_jobs/deploy.py {bundle}"
        return (
            f"{verdict}: {'; '.join(values['why'])}\n"
            f"{values['candidate']}: {verdict}, {bundle}{'' if verdict == REFUSED else next_step}"
        )


def retrain(config: RetrainConfig, train: Train, command: str) -> Retrained:
    """Retrain to the verdict; `config.storage_path` is absolute.

    Raises UserError before any training where bundle, corrections or replay are wrong.
    """
    bundle = open_bundle(config.bundle)
    if bundle.family != "ctc":
        raise UserError(
            f"{bundle.path}: expected a ctc bundle, got {bundle.family}; train it further with its "
            "own config and data.train=[{format: corrections, path: …}]"
        )
    replay = replay_of(bundle, config.replay)
    validation = Dataset.open(replay, "validation")
    Dataset.open(replay, "train")
    corrected = open_training(
        (CorrectionsSettings(format="corrections", path=config.corrections),), config.max_skipped
    )
    if len(corrected) < config.min_samples:
        raise UserError(
            f"{config.corrections}: {len(corrected)} usable corrections; "
            f"at least {config.min_samples} are needed"
        )
    output = Path(config.storage_path) / (
        config.output or f"retrain-{bundle.name}-{_hash(config, bundle, corrected)}"
    )
    if verdict := read_object(output / VERDICT_FILE):
        print(f"{shown(output)}: this retraining is finished", flush=True)
        return Retrained(output, verdict)
    output.mkdir(parents=True, exist_ok=True)
    return _Retraining(
        config, train, command, bundle, replay, validation, corrected, output
    ).finish()


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
    train: Train
    command: str
    bundle: Bundle
    replay: str
    validation: Dataset
    corrected: Dataset
    output: Path

    def finish(self) -> Retrained:
        """Train what is left, decide, and write the verdict."""
        began = time.time()
        parts = self._parts()
        held_out = max(map(len, parts)) >= self.config.least_held_out
        old = load(self.bundle.path)
        print(f"{len(self.corrected):,} corrections: {self._way(parts, held_out)}", flush=True)
        way = self._by_held_out if held_out else self._by_folds
        candidate, indices, new = way(parts)
        last = 2 if held_out else len(parts) + 2
        self._write_progress("evaluating", (last, last), None)
        before, after = evaluate(old, self.validation), evaluate(load(candidate), self.validation)
        first = first_of(self.bundle, before)
        verdict = decide(
            compare(before, after),
            compare(evaluate(old, self.corrected, indices), new),
            held_out,
            self.config.gate.max_forgetting,
            None if first.model == id_of(self.bundle) else compare(first.on(before), after),
        )
        files = {**replay_files(self.replay), FIRST: first.to_bytes()}
        made = with_replay(open_bundle(candidate), self.output / "bundle", files)
        return self._finished(verdict, made, first.model, time.time() - began)

    def _parts(self) -> list[list[int]]:
        """Return the corrections in parts; those of one page stay together."""
        groups = [
            self.corrected.group(index).get("page", self.corrected.ids[index])
            for index in range(len(self.corrected))
        ]
        return divided(groups, self.config.folds)

    def _by_held_out(self, parts: list[list[int]]) -> tuple[Path, list[int], Evaluation]:
        """Train the candidate without the largest part, and read that part with it."""
        out = max(parts, key=len)
        rest = [index for index in range(len(self.corrected)) if index not in set(out)]
        candidate = self._trained(self._name, rest, self.replay, (1, 2))
        return candidate, out, evaluate(load(candidate), self.corrected, out)

    def _by_folds(self, parts: list[list[int]]) -> tuple[Path, list[int], Evaluation]:
        """Read each part with a run that was trained without it; train the candidate on all."""
        read = [self._of_a_fold(number, part, parts) for number, part in enumerate(parts, start=1)]
        number = (len(parts) + 1, len(parts) + 2)
        everything = list(range(len(self.corrected)))
        candidate = self._trained(self._name, everything, self.replay, number)
        return candidate, [index for part in parts for index in part], joined(read)

    @property
    def _name(self) -> str:
        """The candidate's name: base-odia → base-odia-r1 → base-odia-r2."""
        repeated = re.fullmatch(r"(.*)-r(\d+)", self.bundle.name)
        return f"{repeated[1]}-r{int(repeated[2]) + 1}" if repeated else f"{self.bundle.name}-r1"

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
        validation = self._data(name, {"train": rest, "validation": part})
        bundle = self._trained(name, rest, validation, (number, len(parts) + 2))
        return evaluate(load(bundle), self.corrected, part)

    def _data(self, name: str, splits: dict[str, list[int]]) -> str:
        """Return the folder of a data set with these corrections."""
        folder = self.output / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, chosen in splits.items():
            if not (folder / f"{split}.parquet").is_file():
                write_atomically(folder / f"{split}.parquet", rows_file(self.corrected, chosen))
        return str(folder)

    def _trained(
        self, name: str, chosen: list[int], validation: str, part: tuple[int, int]
    ) -> Path:
        """Return the bundle of a run on these corrections."""
        config = self._run_config(name, self._data(name, {"train": chosen}), validation)
        self._write_progress(name, part, name)
        return launch(config, self.train, self.command).run_dir / "bundle"

    def _run_config(self, name: str, data: str, validation: str) -> TrainConfig:
        config, bundle, is_fold = self.config, self.bundle, validation != self.replay
        # a fold has too few lines for the gate of a quantised backend
        backends = ["torch"] if is_fold else list(bundle.backends)
        not_of_the_run = ("alphabet", "character_dict_path")
        model = {key: value for key, value in bundle.model.items() if key not in not_of_the_run}
        decoding = {key: value for key, value in bundle.decoding.items() if key != "calibration"}
        values = {
            "run_name": name,
            "storage_path": str(self.output),
            "data": {
                "train": data,
                "validation": validation,
                "replay": self.replay,
                "replay_ratio": config.replay_ratio,
            },
            "train": self._loop_settings(),
            "optimizer": {"learning_rate": config.learning_rate, "warmup_steps": 10},
            "model": model,
            "augment": {"strength": config.augment},
            "decoding": decoding,
            "export": {
                "backends": backends,
                "half_weights": not is_fold,
                "max_cer_difference": 0.01,
                "initial_share": config.initial_share,
            },
            "workers": config.workers,
            "threads_per_worker": config.threads_per_worker,
        }
        return parse_settings(TrainConfig, values, f"{self.output}: {name}")

    def _loop_settings(self) -> dict[str, Any]:
        config = self.config
        epochs = config.num_epochs
        length = {"max_steps": config.max_steps} if epochs is None else {"num_epochs": epochs}
        return {
            **length,
            "global_batch_size": config.global_batch_size,
            "micro_batch_size": min(16, config.global_batch_size),
            "save_steps": config.save_steps,
            "eval_steps": 1_000_000,  # once, at the end: the lines that decide must not choose
            "logging_steps": 5,
            "seed": config.seed,
            "init_from": str(self.bundle.path),
        }

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
        write_json(self.output / PROGRESS_FILE, progress)
        print(f"part {part[0]} of {part[1]}: {phase}", flush=True)

    def _finished(self, verdict: Verdict, made: Bundle, first: str, seconds: float) -> Retrained:
        values = {
            **verdict.as_json(),
            "candidate": id_of(made),
            "of": id_of(self.bundle),
            "first": first,
            "samples": len(self.corrected),
            "replay": self.replay,
            "seconds": round(seconds, 1),
            "command": self.command,
        }
        write_json(self.output / VERDICT_FILE, values)
        return Retrained(self.output, values)
