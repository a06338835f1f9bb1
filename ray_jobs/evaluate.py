"""Error rates of a bundle, or of every checkpoint of a run and its bundle, on a data set's validation split; or two compared.

python ray_jobs/evaluate.py runs/odia-ctc
python ray_jobs/evaluate.py runs/odia-ctc/bundle data=odia_words
python ray_jobs/evaluate.py compare runs/old runs/new data=my_data     # which lines changed, and whether the difference is one
"""

from argparse import Namespace
from pathlib import Path

from ocr.errors import UserError
from ray_jobs import command


def main(arguments: Namespace) -> None:
    """Print a table, a line per recogniser; or the lines that changed and both error rates."""
    data = dict(word.partition("=")[::2] for word in arguments.words if "=" in word)
    paths = [Path(word) for word in arguments.words if "=" not in word]
    if set(data) - {"data"}:
        raise UserError(
            f"{', '.join(sorted(set(data) - {'data'}))}: unknown; known here: data=FOLDER or an embedded data set's name"
        )
    if len(paths) != (3 if paths[:1] == [Path("compare")] else 1):
        raise UserError(
            f"found {' '.join(arguments.words) or 'nothing'}; give RUN_OR_BUNDLE, or compare OLD NEW, and data=FOLDER"
        )
    from trainers.runs.evaluate import HEADER, best_of, compared, judge

    if len(paths) == 3:
        print(compared(paths[1], paths[2], data.get("data")))
        return
    print(HEADER)
    verdicts = []
    for verdict in judge(paths[0], data.get("data")):
        print(verdict, flush=True)
        verdicts.append(verdict)
    if len(verdicts) > 1:
        print(f"best: {best_of(verdicts)}")


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        words={"nargs": "*", "metavar": "RUN_OR_BUNDLE | compare OLD NEW | data=FOLDER"},
    )
