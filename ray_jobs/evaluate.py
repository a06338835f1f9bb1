"""Evaluate a bundle, or every checkpoint of a run and its bundle; or compare two.

python ray_jobs/evaluate.py runs/odia-ctc
python ray_jobs/evaluate.py runs/odia-ctc/bundle data=odia_words
python ray_jobs/evaluate.py runs/tiny-vlm/merged backend=vllm         # a bundle with another engine
python ray_jobs/evaluate.py compare runs/old runs/new data=my_data    # changed lines, significance
"""

from argparse import Namespace

from ocr.errors import UserError
from ocr.mirror import copied, fetched
from ocr.settings import with_home
from ray_jobs import command


def main(arguments: Namespace) -> None:
    """Print a table with a line per recogniser, or the changed lines and both error rates."""
    named = dict(word.partition("=")[::2] for word in arguments.words if "=" in word)
    words = [word for word in arguments.words if "=" not in word]
    if unknown := set(named) - {"data", "backend"}:
        raise UserError(
            f"{', '.join(sorted(unknown))}: unknown; expected data=FOLDER_OR_NAME, backend=NAME"
        )
    if len(words) != (3 if words[:1] == ["compare"] else 1):
        got = " ".join(arguments.words) or "nothing"
        raise UserError(f"expected RUN_OR_BUNDLE, or compare OLD NEW, and data=FOLDER; got {got}")
    from trainers.runs.evaluate import HEADER, Result, best_of, compared, evaluate_run

    data = with_home(named["data"]) if "data" in named else None
    backend = named.get("backend")
    if len(words) == 3:
        print(compared(fetched(words[1]), fetched(words[2]), data, backend))
        return
    results: list[Result] = []
    with copied(words[0]) as run:
        for result in evaluate_run(run, data, backend):
            print(result if results else f"{HEADER}\n{result}", flush=True)
            results += [result]
    if len(results) > 1:
        print(f"best: {best_of(results)}")


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        words={"nargs": "*", "metavar": "RUN_OR_BUNDLE | compare OLD NEW | data=FOLDER"},
    )
