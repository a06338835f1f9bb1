"""Sources → a data set: train.parquet, validation.parquet and dataset.json in the folder `output`.

python ray_jobs/prepare.py configs/data/odia_words.yaml output=/tmp/words
"""

from argparse import Namespace
from pathlib import Path

from ocr.dataset.config import PrepareConfig
from ocr.settings import load_settings
from ray_jobs import command


def main(arguments: Namespace) -> None:
    """Build the data set that the config describes."""
    config = load_settings(PrepareConfig, arguments.config, arguments.overrides)
    from ocr.dataset.build import build

    print(build(config))


if __name__ == "__main__":
    command.run(main, __doc__, config={"type": Path, "metavar": "CONFIG"}, overrides={"nargs": "*", "metavar": "key=value"})
