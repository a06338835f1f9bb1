"""The journal of an endpoint: which models were asked for, and the outcomes.

journal/…json            {"what": "deploy" | "promote" | "traffic" | "retrain", "bundle", …} from
                         requests, and {"what": "live" | "refused" | …, "of", …} from the one actor
loaded/PROMOTION/…json   each replica's report on a promotion: {"ok", "why"}
"""

import json
from typing import Any

from serve.store import Store

FOLDER = "journal"
OUTCOMES = ("live", "refused", "rolled_back")

Entry = dict[str, Any]


class Journal:
    """Entries that are only ever added, in a store that all replicas share."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, **entry: Any) -> str:
        """Add an entry; return its id, which sorts after every earlier one."""
        return self._store.append(FOLDER, entry)

    def entries(self) -> list[Entry]:
        """Return all entries, the oldest first, each with its `id`."""
        return self._store.entries(FOLDER)

    def live(self, entries: list[Entry] | None = None) -> str | None:
        """Return the bundle that is served; None before the first."""
        last = self._last_live(entries)
        return last["bundle"] if last else None

    def candidate(self, entries: list[Entry] | None = None) -> tuple[str, float]:
        """Return the bundle tried on a share of the requests, and the share; "" and 0 for none."""
        last = self._last_live(entries)
        return str(last.get("candidate", "")), float(last.get("share", 0.0))

    def pending(self) -> list[Entry]:
        """Return promotions and trials without an outcome, the oldest first."""
        entries = self.entries()
        done = {entry["of"] for entry in entries if entry["what"] in OUTCOMES}
        return [
            entry
            for entry in entries
            if entry["what"] in ("promote", "traffic") and entry["id"] not in done
        ]

    def outcome(self, promotion: str) -> Entry | None:
        """Return the outcome of a promotion; None while it is under way."""
        outcomes = (entry for entry in self.entries() if entry["what"] in OUTCOMES)
        return next((entry for entry in outcomes if entry["of"] == promotion), None)

    def report(self, promotion: str, replica: str, why: str | None) -> None:
        """Store a replica's report: the promoted bundle is loaded (`why` is None), or why not."""
        content = json.dumps({"ok": why is None, "why": why}).encode()
        self._store.put(f"loaded/{promotion}/{replica}.json", content)

    def reports(self, promotion: str) -> dict[str, str | None]:
        """Return by replica None where the promoted bundle is loaded, else why not.

        A damaged report counts as none.
        """
        folder = f"loaded/{promotion}"
        found = {name: self._store.object(f"{folder}/{name}") for name in self._store.names(folder)}
        return {
            name.removesuffix(".json"): report["why"]
            for name, report in found.items()
            if report and "why" in report
        }

    def _last_live(self, entries: list[Entry] | None) -> Entry:
        known = self.entries() if entries is None else entries
        return next((entry for entry in reversed(known) if entry["what"] == "live"), {})
