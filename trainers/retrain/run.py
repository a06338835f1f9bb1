"""Retraining from the command to the verdict: divide the corrections, train with replay, read with what came of it, judge. The same command again goes on.

OUTPUT/data/…             corrections as data sets: all, and each division
OUTPUT/fold_1 …           runs that judge where corrections are few: each part of them held out in turn
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
from ocr.files import read_json, write_atomically, write_json
from ocr.recognizers.factory import load
from ocr.replay import replay_files, replay_of, rows_file, with_replay
from ocr.retraining import PROGRESS_FILE, REFUSED, VERDICT_FILE, RetrainConfig
from ocr.settings import parse_settings
from ocr.sources.settings import CorrectionsSettings
from trainers.config import TrainConfig
from trainers.retrain.gate import Verdict, joined, judge
from trainers.runs.launch import Job, launch, shown

Train = Callable[[Job], None]


@dataclass(frozen=True, slots=True)
class Retrained:
    """A finished retraining, as verdict.json has it."""

    output: Path
    found: dict[str, Any]

    def __str__(self) -> str:
        found, bundle = self.found, shown(self.output / "bundle")
        next_step = (
            ""
            if found["verdict"] == REFUSED
            else f"; serve it: python ray_jobs/deploy.py {bundle}"
        )
        return f"{found['verdict']}: {'; '.join(found['why'])}\n{found['candidate']}: {found['verdict']}, {bundle}{next_step}"


def retrain(config: RetrainConfig, train: Train, command: str) -> Retrained:
    """To the verdict; `config.storage_path` is absolute. UserError before any training where bundle, corrections or replay are no good."""
    bundle = open_bundle(Path(config.bundle))
    if bundle.family != "ctc":
        raise UserError(
            f"{bundle.path}: a {bundle.family} bundle; train it further with its own config and data.train=[{{format: corrections, path: …}}]"
        )
    replay = replay_of(bundle, config.replay)
    judged = Dataset.open(replay, "validation")
    Dataset.open(replay, "train")
    corrected = open_training(
        (CorrectionsSettings(format="corrections", path=config.corrections),), config.max_skipped
    )
    if len(corrected) < config.min_samples:
        raise UserError(
            f"{config.corrections}: {len(corrected)} usable corrections; at least {config.min_samples} are needed"
        )
    output = Path(config.storage_path) / (
        config.output or f"retrain-{bundle.name}-{_hash(config, bundle, corrected)}"
    )
    if (output / VERDICT_FILE).is_file():
        print(f"{shown(output)}: this retraining is finished", flush=True)
        return Retrained(output, read_json(output / VERDICT_FILE))
    output.mkdir(parents=True, exist_ok=True)
    return _Retraining(
        config, train, command, bundle, replay, judged, corrected, output
    ).to_its_end()


def _hash(config: RetrainConfig, bundle: Bundle, corrected: Dataset) -> str:
    settings = config.model_dump(
        exclude={
            "bundle",
            "corrections",
            "storage_path",
            "output",
            "workers",
            "threads_per_worker",
            "save_steps",
        }
    )
    return hashlib.sha256(
        json.dumps([bundle.sha256, corrected.fingerprint, settings], sort_keys=True).encode()
    ).hexdigest()[:8]


def divided(groups: Sequence[str], parts: int) -> list[list[int]]:
    """Slots of samples in so many parts of like size, none of whose groups stands in two; where there are fewer groups than parts, each sample goes by itself."""
    keys = (
        list(groups)
        if len(set(groups)) >= parts
        else [f"{group}/{place}" for place, group in enumerate(groups)]
    )
    found: list[list[int]] = [[] for _ in range(parts)]
    for key in sorted(
        set(keys), key=lambda key: (-keys.count(key), hashlib.sha256(key.encode()).digest())
    ):
        min(found, key=len).extend(place for place, other in enumerate(keys) if other == key)
    return [sorted(part) for part in found]


@dataclass(frozen=True, slots=True)
class _Retraining:
    config: RetrainConfig
    train: Train
    command: str
    bundle: Bundle
    replay: str
    judged: Dataset
    corrected: Dataset
    output: Path

    def to_its_end(self) -> Retrained:
        began = time.time()
        parts = divided(
            [
                self.corrected.group(index).get("page", self.corrected.ids[index])
                for index in range(len(self.corrected))
            ],
            self.config.folds,
        )
        held_out = max(map(len, parts)) >= self.config.least_held_out
        old = load(self.bundle.path)
        print(f"{len(self.corrected):,} corrections: {self._way(parts, held_out)}", flush=True)
        everything = range(len(self.corrected))
        if held_out:
            out = max(parts, key=len)
            candidate = self._trained(
                self._name,
                [place for place in everything if place not in set(out)],
                self.replay,
                (1, 2),
            )
            judges, new = out, evaluate(load(candidate), self.corrected, out)
        else:
            judges, new = (
                [place for part in parts for place in part],
                joined(
                    [
                        self._of_a_fold(number, part, parts)
                        for number, part in enumerate(parts, start=1)
                    ]
                ),
            )
            candidate = self._trained(
                self._name, list(everything), self.replay, (len(parts) + 1, len(parts) + 2)
            )
        last = 2 if held_out else len(parts) + 2
        self._tell("judging", (last, last), None)
        base = compare(evaluate(old, self.judged), evaluate(load(candidate), self.judged))
        verdict = judge(
            base,
            compare(evaluate(old, self.corrected, judges), new),
            held_out,
            self.config.max_loss,
        )
        made = with_replay(
            open_bundle(candidate), self.output / "bundle", replay_files(self.replay)
        )
        return self._finished(verdict, made, time.time() - began)

    @property
    def _name(self) -> str:
        """base-odia → base-odia-r1 → base-odia-r2."""
        found = re.fullmatch(r"(.*)-r(\d+)", self.bundle.name)
        return f"{found[1]}-r{int(found[2]) + 1}" if found else f"{self.bundle.name}-r1"

    def _way(self, parts: list[list[int]], held_out: bool) -> str:
        if held_out:
            return f"{max(map(len, parts))} are held out to judge by"
        return f"too few to hold {self.config.least_held_out} out, so each of {len(parts)} parts is held out in turn, and a run with all of them makes the candidate"

    def _of_a_fold(self, number: int, part: list[int], parts: list[list[int]]) -> Evaluation:
        rest = sorted(place for other in parts if other is not part for place in other)
        name = f"fold_{number}"
        validation = self._data(name, {"train": rest, "validation": part})
        bundle = self._trained(name, rest, validation, (number, len(parts) + 2))
        return evaluate(load(bundle), self.corrected, part)

    def _data(self, name: str, splits: dict[str, list[int]]) -> str:
        """A data set's folder with these corrections."""
        folder = self.output / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, chosen in splits.items():
            if not (folder / f"{split}.parquet").is_file():
                write_atomically(folder / f"{split}.parquet", rows_file(self.corrected, chosen))
        return str(folder)

    def _trained(
        self, name: str, chosen: list[int], validation: str, part: tuple[int, int]
    ) -> Path:
        """The bundle of a run on these corrections."""
        config = self._run_config(name, self._data(name, {"train": chosen}), validation)
        self._tell(name, part, name)
        return launch(config, self.train, self.command).run_dir / "bundle"

    def _run_config(self, name: str, data: str, validation: str) -> TrainConfig:
        config, is_fold = self.config, validation != self.replay
        length = (
            {"max_steps": config.max_steps}
            if config.num_epochs is None
            else {"num_epochs": config.num_epochs}
        )
        backends = (
            ["torch"] if is_fold else list(self.bundle.backends)
        )  # a fold has too few lines for the gate of a quantised one
        values = {
            "run_name": name,
            "storage_path": str(self.output),
            "data": {
                "train": data,
                "validation": validation,
                "replay": self.replay,
                "replay_ratio": config.replay_ratio,
            },
            "train": {
                **length,
                "global_batch_size": config.global_batch_size,
                "micro_batch_size": min(16, config.global_batch_size),
                "save_steps": config.save_steps,
                "eval_steps": 1_000_000,  # once, at the end: what judges must not choose
                "logging_steps": 5,
                "seed": config.seed,
                "init_from": str(self.bundle.path),
            },
            "optimizer": {"learning_rate": config.learning_rate, "warmup_steps": 10},
            "model": {
                key: value
                for key, value in self.bundle.model.items()
                if key not in ("alphabet", "character_dict_path")
            },
            "augment": {"strength": config.augment},
            "decoding": {
                key: value for key, value in self.bundle.decoding.items() if key != "calibration"
            },
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

    def _tell(self, phase: str, part: tuple[int, int], run: str | None) -> None:
        """Where it is, for whoever watches."""
        where = {"phase": phase, "part": part[0], "parts": part[1], "run": run}
        write_json(
            self.output / PROGRESS_FILE,
            {**where, "max_steps": self.config.max_steps, "num_epochs": self.config.num_epochs},
        )
        print(f"part {part[0]} of {part[1]}: {phase}", flush=True)

    def _finished(self, verdict: Verdict, made: Bundle, seconds: float) -> Retrained:
        found = {
            **verdict.as_json(),
            "candidate": f"{made.name}@{made.sha256[:12]}",
            "of": f"{self.bundle.name}@{self.bundle.sha256[:12]}",
            "samples": len(self.corrected),
            "replay": self.replay,
            "seconds": round(seconds, 1),
            "command": self.command,
        }
        write_json(self.output / VERDICT_FILE, found)
        return Retrained(self.output, found)
