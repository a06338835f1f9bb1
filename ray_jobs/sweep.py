"""Search settings on Ray Tune: trials of a base config with other values; the same command resumes.

python ray_jobs/sweep.py configs/sweeps/tiny.yaml trials=16
"""

from argparse import Namespace
from pathlib import Path

from ocr.settings import load_settings
from ocr.system_errors import reported
from ray_jobs import command
from trainers.sweep.settings import SweepConfig


def main(arguments: Namespace) -> None:
    """Run the sweep to its end and print the best trial."""
    sweep = command.in_storage(load_settings(SweepConfig, arguments.config, arguments.overrides))
    from trainers.sweep.run import run_sweep

    with reported(sweep.local_dir, "set storage_path to a folder that you may write"):
        print(run_sweep(sweep, command.this_command()))


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        SweepConfig,
        config={"type": Path, "metavar": "CONFIG"},
        overrides={"nargs": "*", "metavar": "key=value"},
    )
