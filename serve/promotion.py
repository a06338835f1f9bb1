"""The one actor that acts on the journal: it tries a promoted bundle, redeploys with it, waits for every replica's word, and takes it back where one fails; and it has
what was asked for retrained, one job at a time.
"""

import logging
import threading
import time
from typing import Any

import ray
from ray import serve

from ocr.errors import UserError
from serve.config import ServeConfig
from serve.corrections import Corrections
from serve.models import JOURNAL, Models
from serve.retraining import Learning

APPLICATION, DEPLOYMENT, NAMESPACE = "lipi", "ocr", "lipi"
_POLL_S = 1.0
_log = logging.getLogger("ray.serve")


def promoter(config: ServeConfig, revision: str) -> Any:
    """The actor of this cluster, started where there is none; it survives its own death and everyone else's."""
    options = {
        "name": "lipi-promoter",
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "num_cpus": 0,
    }
    return ray.remote(Promoter).options(**options).remote(config, revision)


def end_promoter() -> None:
    """Of an application that is replaced or ends."""
    try:
        ray.kill(ray.get_actor("lipi-promoter", NAMESPACE))
    except ValueError:
        return


class Promoter:
    """Acts on promotions one at a time, the oldest first; what it was killed in, it does again."""

    def __init__(self, config: ServeConfig, revision: str) -> None:
        self._config, self._revision, self._models = config, revision, Models(config.storage_path)
        self._woken = threading.Event()
        self._learning = Learning(self._models, Corrections(self._models.store, config.limits))
        for watch in (self._watch, self._watch_training):
            threading.Thread(target=watch, daemon=True).start()

    def wake(self) -> None:
        """There is something in the journal."""
        self._woken.set()

    def _watch(self) -> None:
        while True:
            try:
                for promotion in self._models.pending():
                    self._act(promotion)
            except Exception:  # noqa: BLE001  whatever it was, the next promotion has to find this actor at work
                _log.exception("promotion: tried again")
            self._woken.wait(_POLL_S if self._models.store.is_local else 10 * _POLL_S)
            self._woken.clear()

    def _watch_training(self) -> None:
        while True:
            try:
                if pending := self._learning.pending():
                    self._learning.advance(pending[0])
                if self._config.promote_when_sure and (better := self._learning.better()):
                    self._models.promote(
                        better[1], "a retraining found it better", retraining=better[0]
                    )
                    self._woken.set()
            except Exception:  # noqa: BLE001  as above
                _log.exception("retraining: looked at again")
            time.sleep(_POLL_S if self._models.store.is_local else 10 * _POLL_S)

    def _act(self, asked: dict[str, Any]) -> None:
        entries = self._models.entries()
        before, tried = self._models.live(entries), self._models.candidate(entries)
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
        problem = self._deployed(bundle, asked["id"], candidate)
        if problem is None:
            self._note(
                "live",
                asked,
                bundle,
                f"every replica had it after {time.monotonic() - began:.1f} s",
                candidate,
            )
            return
        if before is not None:
            self._deployed(before, asked["id"] + "-back", tried)
        self._note("rolled_back", asked, before, problem, tried)

    def _require_whole(self, bundle: str) -> None:
        """Before any replica is asked; a model that needs a GPU is only hashed here."""
        if self._config.num_gpus:
            for one in bundle.split(","):
                self._models.path(one)
        else:
            self._models.load(bundle, self._config.backend, "cpu")

    def _deployed(self, bundle: str, promotion: str, candidate: tuple[str, float]) -> str | None:
        """Redeploy with it, and a candidate with its share of the requests; None once every replica has said that it reads with it, else why not."""
        from serve.app import build_with

        serve.run(
            build_with(self._config, bundle, promotion, self._revision, candidate=candidate),
            name=APPLICATION,
            route_prefix="/",
        )
        deadline = time.monotonic() + self._config.promote_timeout_s
        while time.monotonic() < deadline:
            said = self._models.said(promotion)
            failed = [f"{replica}: {why}" for replica, why in said.items() if why is not None]
            if failed:
                return "; ".join(failed)
            status = serve.status().applications[APPLICATION].deployments[DEPLOYMENT]
            running = sum(
                count for state, count in status.replica_states.items() if state == "RUNNING"
            )
            if status.status == "HEALTHY" and 0 < running <= len(said):
                return None
            time.sleep(0.1)
        return f"after {self._config.promote_timeout_s:g} s not every replica had loaded it"

    def _note(
        self,
        what: str,
        asked: dict[str, Any],
        bundle: str | None,
        why: str,
        candidate: tuple[str, float],
    ) -> None:
        tried = {"candidate": candidate[0], "share": candidate[1]} if candidate[0] else {}
        self._models.store.append(
            JOURNAL, {"what": what, "of": asked["id"], "bundle": bundle, "why": why, **tried}
        )
