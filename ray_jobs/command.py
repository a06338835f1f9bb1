"""What every script shares: its arguments, the exit status, and where relative paths of a run lead."""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ocr.errors import GivenUp, UserError
from ocr.files import read_json
from ocr.retraining import RetrainConfig
from ocr.settings import load_settings, read_yaml
from serve.config import ServeConfig
from trainers.config import TrainConfig
from trainers.sweep.settings import SweepConfig

Stored = TypeVar("Stored", TrainConfig, SweepConfig, RetrainConfig, ServeConfig)
PROJECT = Path(__file__).resolve().parent.parent


def run(
    main: Callable[[argparse.Namespace], int | None],
    about: str | None,
    **arguments: dict[str, object],
) -> NoReturn:
    """Parse, call `main`, exit: 0 done (or what `main` gives), 2 the user's mistake in one message, 1 and a traceback for anything else."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, options in arguments.items():
        parser.add_argument(name.replace("_", "-") if name.startswith("__") else name, **options)  # type: ignore[arg-type]
    parsed = parser.parse_args()
    try:
        status = main(parsed)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        status = 2
    except GivenUp as end:
        print(f"error: {end}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is saved", file=sys.stderr)
        status = 130
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(status or 0)


def told_again() -> str:
    """This command, as it can be given again."""
    return shlex.join(["python", *sys.argv])


def in_storage(config: Stored) -> Stored:
    """The config with an absolute storage_path: as given, under LIPI_STORAGE, or under the working directory.

    Inside a Ray job a relative one is refused: the job's folder is Ray's cache.
    """
    path, shared = config.storage_path, os.environ.get("LIPI_STORAGE")
    if isinstance(config, ServeConfig) and "://" in path:
        return config
    for where in (path, shared or ""):
        if "://" in where:
            raise UserError(
                f"storage_path {where}: runs live in folders so far; name one that every node mounts, such as /mnt/lipi"
            )
    if not Path(path).is_absolute():
        if not shared and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
            raise UserError(
                f"storage_path {path}: relative inside a Ray job, whose folder is lost; set LIPI_STORAGE or storage_path to a folder such as /mnt/lipi"
            )
        path = str((Path(shared) if shared else Path.cwd()) / path)
    return config.model_copy(update={"storage_path": path})


def split_config(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """`[CONFIG] [key=value …]` → the config's path, if given, and the overrides."""
    if words and "=" not in words[0]:
        return Path(words[0]), list(words[1:])
    return None, list(words)


def last_saved(path: Path, overrides: Sequence[str]) -> Path | None:
    """The newest checkpoint of a config's run that is not finished; None without such a run, or where the overrides do not fit the config."""
    try:
        config = load_settings(TrainConfig, path, overrides)
    except UserError:
        return None
    run_dir = in_storage(config).local_run_dir
    saved = sorted(
        run_dir.glob("checkpoint_[0-9]*/manifest.json"),
        key=lambda file: int(file.parent.name.partition("_")[2]),
    )
    if (
        not saved
        or _read(read_yaml, run_dir / "config.yaml").get("model", {}).get("kind")
        != config.model.kind
    ):
        return None
    newest = saved[-1].parent
    return (
        None
        if newest.name
        == f"checkpoint_{_read(read_json, run_dir / 'report.json').get('step', 0):06d}"
        else newest
    )


def _read(parse: Callable[[Path], Any], file: Path) -> dict[str, Any]:
    """What a file of a run says; nothing where it is missing or damaged, which is for the launcher to judge."""
    try:
        return dict(parse(file))
    except (OSError, ValueError, TypeError):
        return {}
