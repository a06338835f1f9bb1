"""The settings that a run stored, read though the file is damaged."""

from pathlib import Path
from typing import Any

from ocr.errors import UserError
from ocr.settings import read_yaml, require_whole


def stored_values(file: Path) -> dict[str, Any]:
    """Return the settings in a run's config.yaml, by their names when it was written.

    A damaged file is told, and the copy in the newest checkpoint beside it is read; UserError where
    there is none.
    """
    copies = sorted(
        file.parent.glob("checkpoint_[0-9]*/config.yaml"),
        key=lambda copy: int(copy.parent.name.removeprefix("checkpoint_")),
        reverse=True,
    )
    problems = []
    for candidate in (file, *copies):
        try:
            values = read_yaml(candidate)
            require_whole(candidate)
        except UserError as problem:
            problems.append(str(problem))
        else:
            if problems:
                print(f"{problems[0]}; read from {candidate}", flush=True)
            return values
    raise UserError(
        f"{problems[0]}; expected the settings of a run, and no checkpoint beside it has a copy; "
        f"restore the file, or move {file.parent} away to start anew"
    )
