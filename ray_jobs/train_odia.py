"""Train the Odia recogniser: without CONFIG, an unfinished run is continued, else this machine's config is taken; otherwise as train.py.

ray job submit --working-dir . -- python ray_jobs/train_odia.py train.max_steps=20
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ray_jobs import command, train
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
    """The config of the unfinished run, the newer of two; else odia.yaml where there is a GPU, odia_ctc.yaml where there is none."""
    stopped = [
        (saved, config) for config in (VLM, CTC) if (saved := command.last_saved(config, overrides))
    ]
    if stopped:
        checkpoint, config = max(stopped, key=lambda pair: pair[0].stat().st_mtime)
        return config, f"its run is not finished and goes on ({checkpoint.parent})"
    there, why = find_gpu()
    return (VLM if there else CTC), why


if __name__ == "__main__":
    command.run(main, __doc__, words={"nargs": "*", "metavar": "[CONFIG] key=value"})
