"""Error rates of a bundle, or of every checkpoint of a run and its bundle, on a data set's validation split.

python ray_jobs/evaluate.py runs/odia-ctc
python ray_jobs/evaluate.py runs/odia-ctc/bundle data=odia_words
"""

from argparse import Namespace
from pathlib import Path

from ocr.errors import UserError
from ray_jobs import command


def main(arguments: Namespace) -> None:
    """Print a table, a line per recogniser."""
    data = dict(word.partition("=")[::2] for word in arguments.overrides)
    if set(data) - {"data"}:
        raise UserError(f"{', '.join(sorted(set(data) - {'data'}))}: unknown; known here: data=FOLDER or an embedded data set's name")
    from trainers.judge import judge

    print(f"{'':<24}{'samples':>9}{'CER':>9}{'graphemes':>11}{'WER':>9}{'exact':>9}")
    for name, counts in judge(arguments.path, data.get("data")):
        rates = (counts.cer, counts.grapheme_cer, counts.wer, counts.exact_match)
        print(f"{name:<24}{counts.samples:>9,}{rates[0]:>9.2%}{rates[1]:>11.2%}{rates[2]:>9.2%}{rates[3]:>9.2%}", flush=True)


if __name__ == "__main__":
    command.run(main, __doc__, path={"type": Path, "metavar": "RUN_OR_BUNDLE"}, overrides={"nargs": "*", "metavar": "data=DATASET"})
