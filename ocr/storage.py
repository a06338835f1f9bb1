"""Where runs, models and corrections live."""

import os
from pathlib import Path

from ocr.errors import UserError
from ocr.settings import with_home

_RAYS_CACHE = "working_dir_files"  # Ray's copies of working directories, a new one for each edit


def storage_path(path: str, takes_buckets: bool = False) -> str:
    """Return the path, absolute: as given, under LIPI_STORAGE, or under the working directory.

    In a folder that Ray made for a job or an application a relative path raises UserError: it is
    Ray's cache. With `takes_buckets` both may be addresses in a bucket, else these raise UserError.
    """
    shared = with_home(os.environ.get("LIPI_STORAGE", ""))
    if takes_buckets and ("://" in path or Path(path).is_absolute()):
        return path
    if takes_buckets and "://" in shared:
        return f"{shared.rstrip('/')}/{path}"
    for where in (path, shared):
        if "://" in where:
            raise UserError(
                f"storage_path {where}: expected a folder; name one that every node mounts, "
                "such as /mnt/lipi"
            )
    if Path(path).is_absolute():
        return path
    if not shared and is_rays_cache(Path.cwd()):
        raise UserError(
            f"storage_path {path}: relative inside a Ray job, whose folder is lost; "
            "set LIPI_STORAGE or storage_path to a folder such as /mnt/lipi, or to a bucket"
        )
    return str((Path(shared) if shared else Path.cwd()) / path)


def is_rays_cache(folder: Path) -> bool:
    """Return whether Ray made the folder, for this job or from a `--working-dir`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or _RAYS_CACHE in folder.parts
