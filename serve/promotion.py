"""The one actor that acts on the journal.

It tries a promoted bundle, deploys it, waits for the report of every replica, and rolls back where
one fails. It also has the retrainings run that were asked for, one job at a time.
"""

import logging
import threading
import time
from typing import Any

import ray

from ocr.errors import UserError
from serve.config import ServeConfig
from serve.corrections import Corrections
from serve.deployment import deployment
from serve.journal import Entry
from serve.models import Models
from serve.retraining import Retrainings
from serve.running import run, state
from serve.store import keep_private

NAMESPACE, NAME = "lipi", "lipi-promoter"
_POLL_S = 1.0
_log = logging.getLogger("ray.serve")


def promoter(config: ServeConfig, revision: str) -> Any:
    """Return the handle of this cluster's actor, which is started where there is none.

    Ray restarts it after its own death; it outlives every replica.
    """
    options = {
        "name": NAME,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "num_cpus": 0,
    }
    return ray.remote(Promoter).options(**options).remote(config, revision)


def end_promoter() -> None:
    """End the actor of an application that is replaced or ends."""
    try:
        ray.kill(ray.get_actor(NAME, NAMESPACE))
    except ValueError:
        return


class Promoter:
    """Acts on promotions one at a time, the oldest first; one it was killed in, it repeats."""

    def __init__(self, config: ServeConfig, revision: str) -> None:
        keep_private(config.storage_path)
        self._config, self._revision, self._models = config, revision, Models(config.storage_path)
        self._journal, self._woken = self._models.journal, threading.Event()
        corrections = Corrections(self._models.store, config.limits)
        self._retrainings = Retrainings(self._models, corrections, config.gate)
        self._poll_s = _POLL_S if self._models.store.is_local else 10 * _POLL_S
        for watch in (self._watch, self._watch_training):
            threading.Thread(target=watch, daemon=True).start()

    def wake(self) -> None:
        """Look at the journal now."""
        self._woken.set()

    def _watch(self) -> None:
        while True:
            try:
                for promotion in self._journal.pending():
                    self._act(promotion)
            except Exception:  # noqa: BLE001  the actor must stay alive for the next promotion
                _log.exception("promotion: will be tried again")
            self._woken.wait(self._poll_s)
            self._woken.clear()

    def _watch_training(self) -> None:
        while True:
            try:
                if pending := self._retrainings.pending():
                    self._retrainings.advance(pending[0])
                if self._config.promotes_when_sure and (better := self._retrainings.better()):
                    why = "a retraining found it better"
                    self._models.promote(better[1], why, retraining=better[0])
                    self._woken.set()
            except Exception:  # noqa: BLE001  as above
                _log.exception("retraining: will be looked at again")
            time.sleep(self._poll_s)

    def _act(self, asked: Entry) -> None:
        entries = self._journal.entries()
        before, tried = self._journal.live(entries), self._journal.candidate(entries)
        if asked["what"] == "traffic":
            bundle, candidate = before, (asked["bundle"] if asked["share"] else "", asked["share"])
        else:
            bundle, candidate = asked["bundle"], ("", 0.0)
        if bundle is None or (bundle, candidate) == (before, tried):
            self._note("live", asked, bundle, "it was live already", candidate)
            return
        try:
            self._require_whole(asked["bundle"])
        except UserError as refusal:
            self._note("refused", asked, before, str(refusal), tried)
            return
        began = time.monotonic()
        problem = self._deploy(bundle, asked["id"], candidate)
        if problem is None:
            why = f"every replica had it after {time.monotonic() - began:.1f} s"
            self._note("live", asked, bundle, why, candidate)
            return
        if before is not None:
            self._deploy(before, asked["id"] + "-back", tried)
        self._note("rolled_back", asked, before, problem, tried)

    def _require_whole(self, bundle: str) -> None:
        """Raise UserError for a bad bundle before any replica loads it; on GPUs hashes alone."""
        if self._config.num_gpus:
            for id in bundle.split(","):
                self._models.path(id)
        else:
            self._models.load(bundle, self._config.backend, "cpu")

    def _deploy(self, bundle: str, promotion: str, candidate: tuple[str, float]) -> str | None:
        """Redeploy; return None once every replica has reported that it reads, else why not.

        Replicas that no node has room for are not waited for: they load it when there is room.
        """
        application = deployment(
            self._config, bundle, promotion, self._revision, promoter, candidate=candidate
        )
        run(application)
        deadline = time.monotonic() + self._config.promote_timeout_s
        while time.monotonic() < deadline:
            reports = self._journal.reports(promotion)
            failed = [f"{replica}: {why}" for replica, why in reports.items() if why is not None]
            if failed:
                return "; ".join(failed)
            now = state()
            if now.failed:
                return now.message
            if now.is_settled and 0 < now.answering <= len(reports):
                return None
            time.sleep(0.1)
        return f"after {self._config.promote_timeout_s:g} s not every replica had loaded it"

    def _note(
        self,
        what: str,
        asked: Entry,
        bundle: str | None,
        why: str,
        candidate: tuple[str, float],
    ) -> None:
        tried = {"candidate": candidate[0], "share": candidate[1]} if candidate[0] else {}
        self._journal.append(what=what, of=asked["id"], bundle=bundle, why=why, **tried)
