"""The application that users start.

python ray_jobs/deploy.py odia                    # Ray, Serve and the endpoint on 127.0.0.1:8000
serve run serve.app:build bundle=odia             # on a Serve that runs already
"""

from typing import Any

from ray.serve import Application

from ocr.settings import settings_from
from ocr.storage import storage_path
from serve.config import ServeConfig
from serve.deployment import deployment
from serve.models import Models
from serve.promotion import promoter
from serve.store import keep_private


def build(arguments: dict[str, Any]) -> Application:
    """Return the endpoint for `serve run serve.app:build bundle=odia …` and `serve deploy`.

    Settings come as key=value, or nested as in a config file. Raises UserError for a storage_path
    that would lie in Ray's cache.
    """
    words = [f"{key}={value}" for key, value in arguments.items() if isinstance(value, str)]
    nested = {key: value for key, value in arguments.items() if not isinstance(value, str)}
    config = settings_from(ServeConfig, nested, words, "serve.app:build")
    path = storage_path(config.storage_path)
    config = config.model_copy(update={"storage_path": path})
    keep_private(path)
    bundle, entry = first_bundle(config)
    return deployment(config, bundle, entry, entry, promoter)


def first_bundle(config: ServeConfig) -> tuple[str, str]:
    """Return the bundle that an endpoint starts with, and its entry in the journal.

    It is the live one where `config.bundle` was the last deployed, else `config.bundle`.
    """
    models = Models(config.storage_path)
    given, journal = models.add(config.bundle), models.journal
    entries = journal.entries()
    deployed = [entry["bundle"] for entry in entries if entry["what"] == "deploy"]
    live = journal.live(entries)
    bundle = live if live is not None and deployed and deployed[-1] == given else given
    entry = journal.append(what="deploy", bundle=given, why=f"starts with {bundle}")
    journal.append(what="live", of=entry, bundle=bundle, why="deployed")
    return bundle, entry
