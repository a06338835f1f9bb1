"""Train the run that a config describes, on Ray Train; the same command again resumes it.

python ray_jobs/train.py configs/odia_ctc.yaml train.max_steps=500 run_name=short
"""

from argparse import Namespace
from pathlib import Path

from ocr.settings import load_settings
from ocr.system_errors import reported
from ray_jobs import command
from trainers.config import TrainConfig
from trainers.runs.first_line import first_line


def main(arguments: Namespace) -> None:
    """Train to the end of the run and print its final line."""
    config = command.in_storage(load_settings(TrainConfig, arguments.config, arguments.overrides))
    if config.list_samples != "only":
        print(first_line(config), flush=True)  # what follows takes seconds to load
    from trainers import on_ray
    from trainers.finish_on_ray import finish
    from trainers.ray_cluster import with_workers
    from trainers.runs.launch import checked_data, launch

    config = with_workers(config)
    if config.list_samples == "only":
        print(checked_data(config).listing())
        return
    with reported(config.local_run_dir, "set storage_path to a folder that you may write"):
        print(launch(config, on_ray.train, command.this_command(), finish))


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        TrainConfig,
        config={"type": Path, "metavar": "CONFIG"},
        overrides={"nargs": "*", "metavar": "key=value"},
    )
