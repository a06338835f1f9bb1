"""What every script shares: its arguments, the exit status, and where relative paths of a run lead."""

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ocr.errors import GivenUp, UserError
from trainers.config import TrainConfig

PROJECT = Path(__file__).resolve().parent.parent


def run(main: Callable[[argparse.Namespace], int | None], about: str | None, **arguments: dict[str, object]) -> NoReturn:
    """Parse, call `main`, exit: 0 done (or what `main` gives), 2 the user's mistake in one message, 1 and a traceback for anything else."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
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


def in_storage(config: TrainConfig) -> TrainConfig:
    """The config with an absolute storage_path: as given, under LIPI_STORAGE, or under the working directory.

    Inside a Ray job a relative one is refused: the job's folder is Ray's cache.
    """
    path, shared = config.storage_path, os.environ.get("LIPI_STORAGE")
    for where in (path, shared or ""):
        if "://" in where:
            raise UserError(f"storage_path {where}: runs live in folders so far; name one that every node mounts, such as /mnt/lipi")
    if not Path(path).is_absolute():
        if not shared and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
            raise UserError(
                f"storage_path {path}: relative inside a Ray job, whose folder is lost; set LIPI_STORAGE or storage_path to a folder such as /mnt/lipi"
            )
        path = str((Path(shared) if shared else Path.cwd()) / path)
    return config.model_copy(update={"storage_path": path})


def split_config(words: Sequence[str], default: Path) -> tuple[Path, list[str]]:
    """`[CONFIG] [key=value …]` → the config's path and the overrides."""
    if words and "=" not in words[0]:
        return Path(words[0]), list(words[1:])
    return default, list(words)
