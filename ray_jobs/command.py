"""The parts that every script shares: arguments, exit status, and the folder of runs."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ocr.errors import GivenUp, Terminated, UserError, first_line
from ocr.files import read_json
from ocr.retraining import RetrainConfig
from ocr.settings import Settings, load_settings, read_yaml
from ocr.settings_reference import as_text
from ocr.sources.settings import SourceSettings
from ocr.storage import storage_path
from ocr.system_errors import is_out_of_memory, mistake_of
from ocr.this_machine import past_proxies
from serve.config import ServeConfig
from trainers.config import TrainConfig
from trainers.sweep.settings import SweepConfig

Stored = TypeVar("Stored", TrainConfig, SweepConfig, RetrainConfig, ServeConfig)
PROJECT = Path(__file__).resolve().parent.parent


def run(
    main: Callable[[argparse.Namespace], int | None],
    about: str | None,
    settings: type[Settings] | None = None,
    **arguments: dict[str, object],
) -> NoReturn:
    """Parse the arguments, call `main`, exit.

    Exit status: 0 done (or the status that `main` returns), 2 a user's mistake in one message, 130
    and 143 ended by Ctrl-C and SIGTERM, 1 and a traceback for anything else. With `settings`,
    `--settings [GROUP]` lists them.
    """
    past_proxies()
    parser = _parser(about, settings, arguments)
    asked = settings and "--settings" in sys.argv[1:]
    try:
        if asked and settings:
            group = [word for word in sys.argv[1:] if word != "--settings"]
            print(as_text(settings, group[-1] if group else None, SourceSettings))
        status = 0 if asked else main(parser.parse_args())
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        status = 2
    except GivenUp as end:
        print(f"error: {end}", file=sys.stderr)
        status = 1
    except BrokenPipeError:
        status = 0
    except Exception as problem:
        message = _fault_of_the_system(problem)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt as end:
        print("interrupted; run the same command to resume", file=sys.stderr)
        status = 143 if isinstance(end, Terminated) else 130
    _flush()
    sys.exit(status or 0)


def _flush() -> None:
    """Print what is left; nothing more where `| head` has read enough."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fault_of_the_system(problem: Exception) -> UserError | None:
    """Return the message for a path or a memory that fails; None for any other error."""
    if is_out_of_memory(problem):
        what_to_do = "end other programs, read less at once, or take a larger machine"
        return UserError(f"out of memory ({first_line(problem)}); {what_to_do}")
    return mistake_of(problem, None, "name another path")


def _parser(
    about: str | None, settings: type[Settings] | None, arguments: dict[str, dict[str, object]]
) -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = _Parser(description=about, formatter_class=shape)
    for name, options in arguments.items():
        flag = name.replace("_", "-") if name.startswith("__") else name
        parser.add_argument(flag, **options)  # type: ignore[arg-type]
    if settings:
        groups = ", ".join(settings.model_fields)
        parser.add_argument(
            "--settings",
            nargs="?",
            const="",
            metavar="GROUP",
            help=f"list all settings, or those of one group, and end: {groups}",
        )
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if option := re.search(r"unrecognized arguments:.*?\s--?([a-z_.-]+)", message):
            message += f"; settings are given as {option[1].replace('-', '_')}=VALUE"
        super().error(message)


def this_command() -> str:
    """Return this command as a user can repeat it."""
    return shlex.join(["python", *sys.argv])


def in_storage(config: Stored) -> Stored:
    """Return the config with an absolute storage_path; see `ocr.storage.storage_path`."""
    return config.model_copy(update={"storage_path": storage_path(config.storage_path)})


def split_config(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Split `[CONFIG] [key=value …]` into the config's path, if given, and the overrides."""
    if words and "=" not in words[0]:
        return Path(words[0]), list(words[1:])
    return None, list(words)


def split_inputs(words: Sequence[str], settings: type[Settings]) -> tuple[list[str], list[str]]:
    """Split `INPUT… key=value…` into inputs and overrides; a file that is there is an input.

    A word of the form of a setting that is no file is an override, so that typing errors are named.
    """
    keys = tuple(f"{key}=" for key in settings.model_fields)
    overrides = [
        word
        for word in words
        if word.startswith(keys) or (re.match(r"[a-z_.]+=", word) and not os.path.exists(word))
    ]
    inputs = [word for word in words if word not in overrides]
    if not inputs:
        raise UserError("nothing to read: name images, PDF files, folders, or - (standard input)")
    return inputs, overrides


def last_saved(path: Path, overrides: Sequence[str]) -> Path | None:
    """Return the newest checkpoint of a config's unfinished run.

    None without such a run, or where the overrides do not fit the config.
    """
    try:
        config = load_settings(TrainConfig, path, overrides)
    except UserError:
        return None
    run_dir = in_storage(config).local_run_dir
    saved = sorted(
        run_dir.glob("checkpoint_[0-9]*/manifest.json"),
        key=lambda file: int(file.parent.name.partition("_")[2]),
    )
    model = _read(read_yaml, run_dir / "config.yaml").get("model", {})
    if not saved or model.get("kind") != config.model.kind:
        return None
    newest, last_step = saved[-1].parent, _read(read_json, run_dir / "report.json").get("step", 0)
    return None if newest.name == f"checkpoint_{last_step:06d}" else newest


def _read(parse: Callable[[Path], Any], file: Path) -> dict[str, Any]:
    """Return the content of a run's file; empty where it is missing or damaged.

    The launcher reports damage.
    """
    try:
        return dict(parse(file))
    except (OSError, ValueError, TypeError):
        return {}
