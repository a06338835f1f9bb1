"""What several retrainings in a row forget: each starts from the one before, whatever its verdict.

python benchmarks/drift.py [--set thai] [--rounds 3] [--lines 260] [--steps 150] [--seed 1]

Every round adds lines to the corrections, as an endpoint does, and trains the candidate of the
round before. CERs are those of the gate: on the validation lines in the first model's bundle.
Held-out lines share neither text nor document with what is corrected.
"""

import argparse
import tempfile
from pathlib import Path

from corrections import FOLDERS, PROJECT, here, lines_of, read, split, write_corrections

from ocr.bundle import SHIPPED
from ocr.recognizers.factory import load
from ocr.retraining import REFUSED, GateSettings, RetrainConfig
from trainers.retrain.run import Retrained, retrain
from trainers.retrain.work import Work


def main() -> None:
    """A row for each round; exit status 1 where one that the gate lets through forgets more."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", default="thai", choices=FOLDERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=260, help="corrections that a round adds")
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps of a round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared" / "data")
    arguments = parser.parse_args()
    lines = lines_of(arguments.data / FOLDERS[arguments.set])
    corrected, held_out = split(lines, arguments.seed, arguments.set == "thai")
    most = GateSettings().max_forgetting
    print(
        "| retraining | corrections | verdict | CER on the first model's validation lines | "
        f"95 % interval, points (limit {100 * most:+.2f}) | CER of {len(held_out)} held-out lines |"
        "\n|---:|---:|---|---|---|---:|"
    )
    bundle, too_much = str(SHIPPED / arguments.set), False
    print(f"| 0 | 0 | – | – | – | {read(load(bundle), held_out).cer:.2%} |", flush=True)
    with tempfile.TemporaryDirectory() as storage:
        for number in range(1, arguments.rounds + 1):
            folder = Path(storage) / f"corrections_{number}"
            some = corrected[: number * arguments.lines]
            write_corrections(some, folder)
            done = _retrained(bundle, folder, storage, arguments.steps)
            bundle = f"{done.output}/bundle"
            forgotten = done.values["since_first"] or done.values["base"]
            too_much |= done.values["verdict"] != REFUSED and forgotten["high"] > most
            print(
                f"| {number} | {len(some)} | {done.values['verdict']} | "
                f"{forgotten['old_cer']:.2%} → {forgotten['new_cer']:.2%} | "
                f"{100 * forgotten['low']:+.2f} to {100 * forgotten['high']:+.2f} | "
                f"{read(load(bundle), held_out).cer:.2%} |",
                flush=True,
            )
    raise SystemExit(too_much)


def _retrained(bundle: str, corrections: Path, storage: str, steps: int) -> Retrained:
    where = {"bundle": bundle, "corrections": str(corrections), "storage_path": storage}
    values = {**where, "max_steps": steps}
    return retrain(RetrainConfig.model_validate(values), Work(here), "benchmarks/drift.py")


if __name__ == "__main__":
    main()
