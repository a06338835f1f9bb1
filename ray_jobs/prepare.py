"""Make a data set of sources: two parquet files, dataset.json, skipped.jsonl and a card.

python ray_jobs/prepare.py configs/data/odia_words.yaml output=/tmp/words workers=2

After a kill the same command resumes. With workers > 1 the units are Ray tasks, here or on the
cluster that RAY_ADDRESS names.
"""

from argparse import Namespace
from pathlib import Path

from ocr.dataset.config import PrepareConfig
from ocr.settings import load_settings
from ocr.system_errors import reported
from ray_jobs import command
from ray_jobs.units import as_ray_tasks


def main(arguments: Namespace) -> None:
    """Build the data set that the config describes; upload it where `format` is hub."""
    config = load_settings(PrepareConfig, arguments.config, arguments.overrides)
    from ocr.dataset.build import build, in_this_process

    with reported(config.output, "set output to a folder that you may write"):
        print(
            build(config, as_ray_tasks(config.workers) if config.workers > 1 else in_this_process)
        )
    if config.format == "hub":
        from ocr.hub import upload

        print(
            upload(
                Path(config.output),
                str(config.hub_repo),
                "dataset",
                config.hub_private,
                "Data set prepared by Lipi",
            )
        )


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        PrepareConfig,
        config={"type": Path, "metavar": "CONFIG"},
        overrides={"nargs": "*", "metavar": "key=value"},
    )
