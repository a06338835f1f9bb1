"""Train a recogniser further on corrections; the verdict says whether it reads better.

python ray_jobs/retrain.py odia my_corrections           # PNG + JSON (docs/formats.md)
python ray_jobs/retrain.py runs/odia-ctc/bundle my_corrections learning_rate=5e-4 num_epochs=40

After a kill the same command resumes. The exit status is 0 whatever the verdict; deploy.py serves
the candidate.
"""

import sys
from argparse import Namespace

from ocr.ray_address import NoCluster
from ocr.retraining import CLUSTER_AWAY, RetrainConfig
from ocr.settings import settings_from
from ocr.system_errors import reported
from ray_jobs import command


def main(arguments: Namespace) -> int:
    """Retrain and print the verdict; return the exit status."""
    words = [
        f"bundle={arguments.bundle}",
        f"corrections={arguments.corrections}",
        *arguments.overrides,
    ]
    config = command.in_storage(settings_from(RetrainConfig, {}, words, "retrain"))
    from trainers import finish_on_ray, on_ray
    from trainers.retrain.run import retrain
    from trainers.retrain.work import Work

    work = Work(on_ray.train, finish_on_ray.finish, finish_on_ray.at_a_worker)
    with reported(config.storage_path, "set storage_path to a folder that you may write"):
        try:
            print(retrain(config, work, command.this_command()))
        except NoCluster as problem:
            print(f"error: {problem}", file=sys.stderr)
            return CLUSTER_AWAY
    return 0


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        RetrainConfig,
        bundle={"metavar": "BUNDLE|odia"},
        corrections={"metavar": "CORRECTIONS"},
        overrides={"nargs": "*", "metavar": "key=value"},
    )
