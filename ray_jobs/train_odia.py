"""Train the Odia recogniser: without CONFIG, configs/odia_ctc.yaml; otherwise as train.py.

ray job submit --working-dir . -- python ray_jobs/train_odia.py train.max_steps=20
"""

from argparse import Namespace

from ray_jobs import command, train

DEFAULT = command.PROJECT / "configs" / "odia_ctc.yaml"


def main(arguments: Namespace) -> None:
    """Choose the config, say which and why, and train."""
    config, overrides = command.split_config(arguments.words, DEFAULT)
    if config == DEFAULT:
        print("configs/odia_ctc.yaml: the CTC recogniser, which every machine can train (the vision-language models are still to come)", flush=True)
    train.main(Namespace(config=config, overrides=overrides))


if __name__ == "__main__":
    command.run(main, __doc__, words={"nargs": "*", "metavar": "[CONFIG] key=value"})
