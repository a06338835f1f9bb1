"""Where runs, models and corrections live."""

import os
from pathlib import Path

from ocr.errors import UserError
from ocr.settings import with_home

_RAYS_CACHE = "working_dir_files"  # Ray's copies of working directories, a new one for each edit


def storage_path(path: str) -> str:
    """Return the path, absolute: as given, under LIPI_STORAGE, or under the working directory.

    Path and LIPI_STORAGE may be addresses in a bucket. In a folder that Ray made for a job or an
    application a relative path raises UserError: it is Ray's cache.
    """
    shared = with_home(os.environ.get("LIPI_STORAGE", ""))
    if shared or is_absolute(path):
        return inside(shared, path)
    if is_rays_cache(Path.cwd()):
        raise UserError(
            f"storage_path {path}: relative inside a Ray job, whose folder is lost; "
            "set LIPI_STORAGE or storage_path to a folder such as /mnt/lipi, or to a bucket"
        )
    return str(Path.cwd() / path)


def inside(storage: str, path: str) -> str:
    """Return a path in a folder or a bucket; an absolute path or an address as it is."""
    if is_absolute(path):
        return path
    return f"{storage.rstrip('/')}/{path}" if "://" in storage else str(Path(storage) / path)


def is_absolute(path: str) -> bool:
    """Return whether a path needs no folder before it: an address in a bucket, too."""
    return "://" in path or Path(path).is_absolute()


def is_rays_cache(folder: Path) -> bool:
    """Return whether Ray made the folder, for this job or from a `--working-dir`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or _RAYS_CACHE in folder.parts
