"""Train a recogniser further on what people corrected, and judge it: prepare → train from the bundle with replay → compare → verdict.json.

python ray_jobs/retrain.py odia my_corrections                    # PNG + JSON, as the web page stores them (docs/formats.md)
python ray_jobs/retrain.py runs/odia-ctc/bundle my_corrections learning_rate=5e-4 num_epochs=40

Killed, the same command goes on where it was. Exit status 0 whatever the verdict is; serve the candidate with ray_jobs/deploy.py.
"""

from argparse import Namespace

from ocr.retraining import RetrainConfig
from ocr.settings import settings_from
from ray_jobs import command


def main(arguments: Namespace) -> None:
    """Retrain, and print the verdict."""
    words = [
        f"bundle={arguments.bundle}",
        f"corrections={arguments.corrections}",
        *arguments.overrides,
    ]
    config = command.in_storage(settings_from(RetrainConfig, {}, words, "retrain"))
    from trainers import on_ray
    from trainers.retrain.run import retrain

    print(retrain(config, on_ray.train, command.told_again()))


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        bundle={"metavar": "BUNDLE|odia"},
        corrections={"metavar": "CORRECTIONS"},
        overrides={"nargs": "*", "metavar": "key=value"},
    )
