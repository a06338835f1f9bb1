"""Watch a run in the terminal, from its files: while it goes on, or after it has ended.

python ray_jobs/watch.py runs/odia-ctc            # until the run ends, or Ctrl C
python ray_jobs/watch.py runs/odia-ctc --once     # one look, as for a log
python ray_jobs/watch.py s3://bucket/runs/odia-ctc
"""

import contextlib
from argparse import Namespace

from ray_jobs import command


def main(arguments: Namespace) -> None:
    """Show step, time left, speed, curves, restarts, checkpoint and a reading of the run."""
    from trainers.watch.view import watch

    with contextlib.suppress(KeyboardInterrupt):
        watch(arguments.run, arguments.once)


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        run={"metavar": "RUN"},
        __once={"action": "store_true", "help": "print it once and end"},
    )
