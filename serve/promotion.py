"""The one actor that acts on the journal: it tries a promoted bundle, redeploys with it, waits for every replica's word, and takes it back where one fails."""

import logging
import threading
import time
from typing import Any

import ray
from ray import serve

from ocr.errors import UserError
from serve.config import ServeConfig
from serve.models import JOURNAL, Models

APPLICATION, DEPLOYMENT, NAMESPACE = "lipi", "ocr", "lipi"
_POLL_S = 1.0
_log = logging.getLogger("ray.serve")


def promoter(config: ServeConfig, revision: str) -> Any:
    """The actor of this cluster, started where there is none; it survives its own death and everyone else's."""
    options = {"name": "lipi-promoter", "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True, "max_restarts": -1, "num_cpus": 0}
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
        threading.Thread(target=self._watch, daemon=True).start()

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

    def _act(self, promotion: dict[str, Any]) -> None:
        bundle, before = promotion["bundle"], self._models.live()
        if bundle == before:
            self._note("live", promotion, bundle, "it was live already")
            return
        try:
            self._require_whole(bundle)
        except UserError as refusal:
            self._note("refused", promotion, before, str(refusal))
            return
        began = time.monotonic()
        problem = self._deployed(bundle, promotion["id"])
        if problem is None:
            self._note("live", promotion, bundle, f"every replica had it after {time.monotonic() - began:.1f} s")
            return
        if before is not None:
            self._deployed(before, promotion["id"] + "-back")
        self._note("rolled_back", promotion, before, problem)

    def _require_whole(self, bundle: str) -> None:
        """Before any replica is asked; a model that needs a GPU is only hashed here."""
        if self._config.num_gpus:
            for one in bundle.split(","):
                self._models.path(one)
        else:
            self._models.load(bundle, self._config.backend, "cpu")

    def _deployed(self, bundle: str, promotion: str) -> str | None:
        """Redeploy with it; None once every replica has said that it reads with it, else why not."""
        from serve.app import build_with

        serve.run(build_with(self._config, bundle, promotion, self._revision), name=APPLICATION, route_prefix="/")
        deadline = time.monotonic() + self._config.promote_timeout_s
        while time.monotonic() < deadline:
            said = self._models.said(promotion)
            failed = [f"{replica}: {why}" for replica, why in said.items() if why is not None]
            if failed:
                return "; ".join(failed)
            status = serve.status().applications[APPLICATION].deployments[DEPLOYMENT]
            running = sum(count for state, count in status.replica_states.items() if state == "RUNNING")
            if status.status == "HEALTHY" and 0 < running <= len(said):
                return None
            time.sleep(0.1)
        return f"after {self._config.promote_timeout_s:g} s not every replica had loaded it"

    def _note(self, what: str, promotion: dict[str, Any], bundle: str | None, why: str) -> None:
        self._models.store.append(JOURNAL, {"what": what, "of": promotion["id"], "bundle": bundle, "why": why})
