"""Serve OCR over HTTP on Ray Serve: POST an image to /v1/ocr and get its text.

python ray_jobs/deploy.py odia port=8000
python ray_jobs/deploy.py runs/odia-ctc/bundle    # where it runs already: swap the model under load
curl --data-binary @line.png -H 'Content-Type: image/png' http://127.0.0.1:8000/v1/ocr
"""

from argparse import Namespace
from pathlib import Path

from ocr.ray_address import names_cluster
from ocr.settings import load_settings
from ocr.system_errors import reported
from ray_jobs import command
from serve.config import ServeConfig
from serve.haproxy import use_haproxy

DEFAULTS = command.PROJECT / "configs" / "serve.yaml"


def main(arguments: Namespace) -> None:
    """Serve until stopped."""
    config = command.in_storage(
        load_settings(
            ServeConfig, arguments.config, [f"bundle={arguments.bundle}", *arguments.overrides]
        )
    )
    if not names_cluster():
        use_haproxy(config.limits)  # before Ray Serve is imported, which reads its settings then
    from serve.deploy import deploy

    with reported(config.storage_path, "set storage_path to a folder that you may write"):
        deploy(config)


if __name__ == "__main__":
    command.run(
        main,
        __doc__,
        ServeConfig,
        bundle={"metavar": "BUNDLE"},
        overrides={"nargs": "*", "metavar": "key=value"},
        __config={
            "type": Path,
            "default": DEFAULTS,
            "metavar": "CONFIG",
            "help": "settings of the endpoint (configs/serve.yaml)",
        },
    )
