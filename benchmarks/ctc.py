"""Our CTC recogniser against docTR and kraken in training, and against Tesseract in reading, side
by side in one run.

  python benchmarks/ctc.py [--minutes 3] [--rounds 1] [--data odia_words] [--bundle PATH] [--only
  training|reading] [--envs DIR]

Everyone gets the same images (PNG and .gt.txt in a folder, the texts in NFC), one process of one
thread on the same core, and in training the same CPU minutes; CER is counted by ocr.scoring on what
each one read of the validation split. A training rate is taken from a hook on optimizer.step after
three warm-up steps; start-up, and reading the validation split, are apart. Peers stop when their
CPU seconds are used; our length is planned in steps from a short trial, so it comes out a little
off: the table says what was used. With more rounds everyone runs in turn, and medians are printed.
The peers are installed into throwaway environments, kept in --envs.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tesseract
from peers.meter import Request, Result
from PIL import Image

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.errors import UserError, last_line
from ocr.images import open_image
from ocr.recognizers.ctc.compact import COMPACT_SIZES
from ocr.scoring import score_all
from ocr.settings import load_settings
from trainers.config import TrainConfig

PROJECT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
CONFIG = PROJECT / "configs" / "odia_ctc.yaml"
PACKAGES = {"docTR": "python-doctr==1.1.0", "kraken": "kraken==7.0.3"}
TORCH, TORCHVISION = (
    importlib.metadata.version("torch").partition("+")[0],
    "torchvision==0.28.0",
)  # ours: a peer would pull another, with gigabytes of CUDA
LANGUAGES = {
    "ORIYA": "ori",
    "BENGALI": "ben",
    "THAI": "tha",
}  # first word of a character's Unicode name → Tesseract's model
TRAINING_TARGET, READING_TARGET, READING_BACKEND = 4.0, 15.0, "onnx-int8"
READING_ROUNDS = 3
KRAKEN_48 = (
    "Cr3,13,32 Do0.1,2 Mp2,2 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,9,64 Do0.1,2 S1(1x0)1,3 Lbx100 "
    "Do0.1,2 Lbx100 Do"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: who, on which network (the two name it), with which options of its
    module in peers/.
    """

    who: str
    network: str
    options: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of ours and of peers that are compared with each other.

    `unit` is what their rates count, samples in training, images in reading.
    """

    title: str
    unit: Literal["samples", "images"]
    rows: tuple[Row, ...]


def tables(config: TrainConfig) -> list[Table]:
    """Who trains what."""
    (c1, c2, c3, c4, c5), units = COMPACT_SIZES[config.model.size]
    batch = config.train.global_batch_size
    plain = {"batch_size": batch, "augment": False}
    norm = "Gn8"  # VGSL has no batch normalisation
    compact = (
        f"Cr3,3,{c1},2,2 {norm} Cr3,3,{c2},2,2 {norm} Cr3,3,{c3} {norm} Cr3,3,{c4},2,1 "
        f"{norm} Cr3,3,{c4} {norm} S1(1x0)1,3 Cr1,1,{c5} {norm} Lbx{units}"
    )
    defaults = (
        Row("Lipi", f"{config.model.kind} {config.model.size}", {"overrides": []}),
        Row(
            "docTR", "crnn_mobilenet_v3_small", {"compact": None, "batch_size": 64, "augment": True}
        ),
        Row("kraken", "its default, 120 px", {}),
        Row("kraken", "48 px", {"spec": f"[1,48,0,1 {KRAKEN_48}]", "batch_size": 16}),
    )
    same = (
        Row(
            "Lipi",
            f"{config.model.kind} {config.model.size}, plain",
            {"overrides": ["augment.strength=0"]},
        ),
        Row(
            "docTR",
            "CRNN on the same convolutions",
            {"compact": [[c1, c2, c3, c4, c5], units], **plain},
        ),
        Row(
            "kraken",
            "the same in VGSL, group norm",
            {"spec": f"[1,32,0,1 {compact}]", "batch_size": batch},
        ),
        Row(
            "kraken",
            "its 48 px network at 32 px",
            {"spec": f"[1,32,0,1 {KRAKEN_48}]", "batch_size": batch},
        ),
    )
    mobile = (
        Row(
            "Lipi",
            "mobilenet_v3_crnn, plain",
            {"overrides": ["augment.strength=0", "model={kind: mobilenet_v3_crnn}"]},
        ),
        Row("docTR", "crnn_mobilenet_v3_small, plain", {"compact": None, **plain}),
    )
    return [
        Table("Training, each one's defaults", "samples", defaults),
        Table(
            f"Training, the same network and height, batches of {batch}, no augmentation (plain)",
            "samples",
            same,
        ),
        Table(
            f"Training, the same kind of network: MobileNetV3, BiLSTM; batches of {batch}, no "
            "augmentation (plain)",
            "samples",
            mobile,
        ),
    ]


@dataclass(frozen=True, slots=True)
class Bench:
    """Where everything lies, and how much of it is measured."""

    envs: Path
    images: Path
    texts: list[str]
    minutes: float
    rounds: int

    @property
    def files(self) -> list[Path]:
        """The validation images that are judged."""
        return sorted((self.images / "validation").glob("*.png"))[: len(self.texts)]

    def output(self, row: Row) -> Path:
        """The folder of a row's run."""
        return self.envs / "runs" / re.sub(r"\W+", "-", f"{row.who} {row.network}")

    def cer(self, readings: Sequence[str]) -> float:
        """Character error rate of readings of `files`."""
        return score_all(zip(self.texts, readings, strict=True)).cer


Outcome = Result | str
Outcomes = dict[Row, list[Outcome]]


def exported(data: str, folder: Path) -> Path:
    """The data set as files, made once.

    SPLIT/000000.png, its text in 000000.gt.txt, and docTR's labels.json, written last.
    """
    splits = {split: Dataset.open(data, split) for split in ("train", "validation")}
    images = folder / "-".join(
        [Path(data).name, *(samples.fingerprint[:8] for samples in splits.values())]
    )
    for split, samples in splits.items():
        target, labels = (
            images / split,
            {f"{index:06}.png": text for index, text in enumerate(samples.texts)},
        )
        if (target / "labels.json").is_file():
            continue
        target.mkdir(parents=True, exist_ok=True)
        for index, (name, text) in enumerate(labels.items()):
            Image.fromarray(open_image(samples.image_bytes(index), "as it is")).save(
                target / name, compress_level=1
            )
            (target / name).with_suffix(".gt.txt").write_text(text, encoding="utf-8")
        (target / "labels.json").write_text(
            json.dumps(labels, ensure_ascii=False), encoding="utf-8"
        )
    return images


def interpreter(who: str, envs: Path) -> str:
    """The Python that has this trainer.

    A peer's environment is made where it is missing or of other versions.
    """
    if who not in PACKAGES:
        return sys.executable
    package, python = PACKAGES[who], envs / who / "bin" / "python"
    torch = f"torch=={TORCH}"
    wanted, stamp = f"{torch} {TORCHVISION} {package}", envs / who / "installed"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {package} into {envs / who}", file=sys.stderr, flush=True)
        output_of(sys.executable, "-m", "venv", "--clear", str(envs / who))
        install = [str(python), "-m", "pip", "install", "--quiet"]
        output_of(*install, torch)
        output_of(*install, "--no-deps", TORCHVISION, package)  # both would replace that torch
        asked = output_of(
            str(python),
            "-c",
            "import importlib.metadata; "
            f"print(*importlib.metadata.requires({package.partition('==')[0]!r}), sep='\\n')",
        )
        output_of(
            *install,
            *(
                line
                for line in asked.splitlines()
                if "extra ==" not in line and not re.match(r"torch(vision)?\b", line)
            ),
        )
        stamp.write_text(wanted)
    return str(python)


def output_of(*command: str) -> str:
    """What a command prints; CalledProcessError with its complaint."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measured(python: str, module: str, request: Request) -> Result:
    """One module of peers/ in a process of its own, with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder, "request.json"), Path(folder, "result.json")
        asked.write_text(json.dumps(asdict(request)), encoding="utf-8")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        command = [python, str(PEERS / "run.py"), module, str(asked), str(found)]
        subprocess.run(
            command,
            cwd=PROJECT,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **threads},
        )
        return Result(**json.loads(found.read_text(encoding="utf-8")))


def attempted(what: str, attempt: Callable[[], Result]) -> Outcome:
    """The result, or in a line why there is none; a failing peer stops nobody else."""
    try:
        result = attempt()
    except subprocess.CalledProcessError as problem:
        complaint = f"failed: {last_line(problem.stderr or 'no message')}"
        print(f"{what}: {problem.stderr}", file=sys.stderr, flush=True)
        return complaint
    except (OSError, UserError) as problem:
        return f"failed: {problem}"
    print(
        f"{what}: {result.rate:.1f} a CPU second, {result.cpu_seconds:.1f} CPU seconds",
        file=sys.stderr,
        flush=True,
    )
    return result


def in_turn(rows: Iterable[Row], rounds: int, measure: Callable[[Row, int], Result]) -> Outcomes:
    """Every row once a round, A B A B."""
    outcomes: Outcomes = {row: [] for row in rows}
    for number in range(rounds):
        for row, found in outcomes.items():
            found.append(
                attempted(
                    f"round {number + 1}, {row.who}, {row.network}",
                    lambda row=row, number=number: measure(row, number),
                )
            )
    return outcomes


def trained(bench: Bench, wanted: Sequence[Table]) -> Outcomes:
    """Every row of the training tables."""

    def train(row: Row, number: int) -> Result:
        options = {"config": str(CONFIG), **row.options} if row.who == "Lipi" else row.options
        request = Request(
            str(bench.images),
            str(bench.output(row)),
            bench.minutes * 60,
            len(bench.texts),
            number,
            options,
        )
        return measured(interpreter(row.who, bench.envs), f"train_{row.who.lower()}", request)

    return in_turn([row for table in wanted for row in table.rows], bench.rounds, train)


def read(bench: Bench, bundle: Path) -> tuple[Table, Outcomes]:
    """Every backend of the bundle, and Tesseract."""
    backends = [
        Row("Lipi", backend, {"bundle": str(bundle), "backend": backend})
        for backend in open_bundle(bundle).backends
    ]
    language = language_of(bench.texts)
    rows = (*backends, Row("Tesseract", language, {}))

    def measure(row: Row, _: int) -> Result:
        if row.who == "Tesseract":
            return read_by_tesseract(bench.files, language)
        return measured(
            sys.executable,
            "read_lipi",
            Request(str(bench.images), "", 0, len(bench.texts), 0, row.options),
        )

    return Table(f"Reading, {bundle}", "images", rows), in_turn(
        rows, max(bench.rounds, READING_ROUNDS), measure
    )


def language_of(texts: Iterable[str]) -> str:
    """Tesseract's name of the script that most characters are of."""
    scripts = Counter(
        unicodedata.name(character, "").partition(" ")[0] for text in texts for character in text
    )
    known = {script: count for script, count in scripts.items() if script in LANGUAGES}
    if not known:
        raise UserError(
            f"no character of {', '.join(LANGUAGES)} in the texts; Tesseract's model cannot be "
            "chosen"
        )
    return LANGUAGES[max(known, key=lambda script: known[script])]


def read_by_tesseract(files: Sequence[Path], language: str) -> Result:
    """The files as words, in one process of one thread.

    What one file by itself takes, start-up and all, is taken off.
    """
    alone, _ = tesseract.read(files[:1], language, 8)
    seconds, readings = tesseract.read(files, language, 8)
    return Result((len(files) - 1) / (seconds - alone), seconds - alone, readings)


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds."""

    rate: float
    cpu_seconds: float
    cer: float
    example: Result


def figures(bench: Bench, outcomes: Sequence[Outcome]) -> Figures | str:
    """Of the rounds that succeeded, or why none did."""
    good = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    if not good:
        return str(outcomes[-1])
    medians = (
        statistics.median(values)
        for values in zip(
            *((found.rate, found.cpu_seconds, bench.cer(found.readings)) for found in good),
            strict=True,
        )
    )
    return Figures(*medians, good[-1])


def show(
    bench: Bench, table: Table, outcomes: Outcomes, target: Callable[[Row], float | None]
) -> None:
    """The table in Markdown, then the ratios with the targets."""
    found = {row: figures(bench, outcomes[row]) for row in table.rows}
    training = table.unit == "samples"
    print(f"\n### {table.title}\n")
    print(
        f"| | network | {'parameters | input C×H×W | batch | ' if training else ''}{table.unit} "
        "per CPU-s | CPU s | CER |"
    )
    print("|---|---|" + "---:|" * (6 if training else 3))
    for row, one in found.items():
        if isinstance(one, str):
            print(f"| {row.who} | {row.network} | {one} |")
            continue
        shape = (
            f"{one.example.parameters:,} | {one.example.input} | {one.example.batch:.0f} | "
            if training
            else ""
        )
        print(
            f"| {row.who} | {row.network} | {shape}{one.rate:,.1f} | {one.cpu_seconds:.1f} | "
            f"{one.cer:.2%} |"
        )
    print()
    for mine, theirs in pairs(table):
        if isinstance(ours := found[mine], Figures) and isinstance(peer := found[theirs], Figures):
            print(
                f"- {mine.who} {mine.network} / {theirs.who} {theirs.network}: "
                f"{compared(ours, peer, target(mine))}"
            )


def pairs(table: Table) -> list[tuple[Row, Row]]:
    """Each row of ours with each of a peer."""
    return [
        (mine, theirs)
        for mine in table.rows
        if mine.who == "Lipi"
        for theirs in table.rows
        if theirs.who != "Lipi"
    ]


def compared(ours: Figures, peer: Figures, target: float | None) -> str:
    """The ratio of the rates and both CERs, with the target where there is one."""
    ratio = ours.rate / peer.rate
    aim = (
        ""
        if target is None
        else f" (target ≥ {target:g}: {'met' if ratio >= target else 'missed'})"
    )
    verdict = "better" if ours.cer < peer.cer else "equal" if ours.cer == peer.cer else "worse"
    return f"{ratio:.2f} times as fast{aim}; CER {ours.cer:.2%} against {peer.cer:.2%}: {verdict}"


def versions() -> str:
    """What ran and on which processor, for the log."""
    cores = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    reader = (
        output_of("tesseract", "--version").splitlines()[0]
        if shutil.which("tesseract")
        else "no tesseract"
    )
    processor = cores[1] if cores else "unknown processor"
    return f"torch {TORCH}, {', '.join(PACKAGES.values())}, {reader}, {processor}"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="CPU minutes of training for everyone"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--data", help="a prepared data set's folder, or an embedded one; default: the config's"
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        help=(
            "what reads; default: the config's run where its data is read, else the bundle "
            "trained here"
        ),
    )
    parser.add_argument("--only", choices=["training", "reading"])
    parser.add_argument("--judged", type=int, help="read only so many validation images (a trial)")
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "lipi" / "peers")
    arguments = parser.parse_args()
    config = load_settings(TrainConfig, CONFIG)
    data = arguments.data or str(config.data.train)
    texts = Dataset.open(data, "validation").texts[: arguments.judged]
    envs = arguments.envs.absolute()
    bench = Bench(envs, exported(data, envs / "images"), texts, arguments.minutes, arguments.rounds)
    wanted = tables(config)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the same core for everyone
    print(
        f"{len(texts):,} validation images of {data} are read; {arguments.minutes:g} CPU minutes "
        f"of training; rounds: {arguments.rounds}; {versions()}"
    )
    if arguments.only != "reading":
        outcomes = trained(bench, wanted)
        for table in wanted:
            show(bench, table, outcomes, lambda _: TRAINING_TARGET)
    if arguments.only != "training":
        of_config = PROJECT / config.local_run_dir / "bundle"
        trained_here = bench.output(wanted[0].rows[0]) / "lipi" / "bundle"
        bundle = arguments.bundle or (
            of_config if data == config.data.train and of_config.is_dir() else trained_here
        )
        show(
            bench,
            *read(bench, bundle.absolute()),
            lambda row: READING_TARGET if row.network == READING_BACKEND else None,
        )


if __name__ == "__main__":
    main()
