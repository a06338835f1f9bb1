"""Train the Odia recogniser. Without CONFIG, resume an unfinished run, else choose by GPU.

configs/odia.yaml where there is a GPU, configs/odia_ctc.yaml where there is none; else as train.py.

ray job submit --working-dir . -- python ray_jobs/train_odia.py train.max_steps=20
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ray_jobs import command, train
from trainers.config import TrainConfig
from trainers.runs.gpus import find_gpu

VLM, CTC = (command.PROJECT / "configs" / name for name in ("odia.yaml", "odia_ctc.yaml"))


def main(arguments: Namespace) -> None:
    """Choose the config where none is given, say which and why, and train."""
    config, overrides = command.split_config(arguments.words)
    if config is None:
        config, why = choose(overrides)
        print(f"configs/{config.name}: {why}", flush=True)
    train.main(Namespace(config=config, overrides=overrides))


def choose(overrides: Sequence[str]) -> tuple[Path, str]:
    """Return a config and why: that of the newest unfinished run, else by GPU."""
    stopped = [
        (saved, config) for config in (VLM, CTC) if (saved := command.last_saved(config, overrides))
    ]
    if stopped:
        checkpoint, config = max(stopped, key=lambda pair: pair[0].stat().st_mtime)
        return config, f"its run is unfinished and resumes ({checkpoint.parent})"
    there, why = find_gpu()
    return (VLM if there else CTC), why


if __name__ == "__main__":
    command.run(main, __doc__, TrainConfig, words={"nargs": "*", "metavar": "[CONFIG] key=value"})
