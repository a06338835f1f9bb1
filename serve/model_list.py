"""The stored models as `GET /v1/models` lists them, in OpenAI's shape."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ocr.retraining import REFUSED
from serve.journal import Entry
from serve.models import Models
from serve.retraining import RETRAINED


def listed(models: Models) -> list[dict[str, Any]]:
    """Return every stored model; the `live` one reads.

    `created`: seconds of the model's first entry in the journal; 0 without one.
    """
    journal = models.journal
    entries = journal.entries()
    live, (candidate, share) = journal.live(entries), journal.candidate(entries)
    verdicts = {
        entry["bundle"]: entry["verdict"] for entry in entries if entry["what"] == RETRAINED
    }
    since = {entry["bundle"]: entry["at"] for entry in entries if entry["what"] == "live"}
    first = {entry["bundle"]: entry["at"] for entry in reversed(entries) if "bundle" in entry}
    return [
        {
            "id": id,
            "object": "model",
            "created": _seconds(first.get(id)),
            "owned_by": "lipi",
            "live": id in (live or "").split(","),
            "share": share if id == candidate else 0.0,
            "verdict": verdicts.get(id),
            "last_live": since.get(id),
            **models.card(id),
        }
        for id in models.ids()
    ]


def advice_against(entries: Sequence[Entry], bundle: str) -> str | None:
    """Return the gate's last verdict on a bundle where it was against promoting it; else None."""
    verdicts = [
        f"{entry['verdict']}: {entry['why']}"
        for entry in entries
        if entry["what"] == RETRAINED and entry["bundle"] == bundle
    ]
    return verdicts[-1] if verdicts and verdicts[-1].startswith(REFUSED) else None


def _seconds(stamp: Any) -> int:
    try:
        return int(datetime.fromisoformat(str(stamp)).timestamp())
    except ValueError:
        return 0
