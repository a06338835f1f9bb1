"""Retraining from the endpoint: asked for in the journal, run as a Ray job of `ray_jobs/retrain.py`, one at a time, taken up again when it dies.

retrain/ID/corrections/ (as they were), attempts.json (Ray's jobs), log.txt, run/ (progress.json, verdict.json, bundle/)
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import ray
from ray.job_submission import JobStatus, JobSubmissionClient

from ocr.files import read_json, write_json
from serve.corrections import Corrections
from serve.limits import Refused
from serve.models import JOURNAL, Models

RETRAINED, FAILED, BETTER = "retrained", "retrain_failed", "better"
MIN_SAMPLES = 10
_PROJECT = Path(__file__).resolve().parent.parent
_MOST_ATTEMPTS, _MOST_STARTS, _USERS_MISTAKE, _LOG_LINES = 3, 10, 2, 40
_BUSY = (JobStatus.PENDING, JobStatus.RUNNING)


class Learning:
    """The retrainings of an endpoint; requests ask and look, the one actor (`serve/promotion.py`) acts."""

    def __init__(self, models: Models, corrections: Corrections) -> None:
        self._models, self._corrections = models, corrections

    def ask(self, settings: dict[str, Any]) -> str:
        """An entry in the journal; Refused 409 while one is under way, 422 with too few corrections or where the live model cannot be trained further."""
        if not self._models.store.is_local:
            raise Refused(
                422,
                "no_folder",
                "retraining from here needs a storage_path that is a folder; with a bucket, run ray_jobs/retrain.py",
            )
        if pending := self.pending():
            raise Refused(
                409, "under_way", f"retraining {pending[0]['id']} is under way; one runs at a time"
            )
        live = self._models.live()
        if live is None or "," in live:
            raise Refused(
                422,
                "several_models",
                f"{live}: several models vote; promote one of them, then retrain",
            )
        if (there := len(self._corrections.records())) < MIN_SAMPLES:
            raise Refused(
                422,
                "too_few_corrections",
                f"{there} corrections; at least {MIN_SAMPLES} are needed",
            )
        return self._models.store.append(
            JOURNAL, {"what": "retrain", "bundle": live, "settings": settings}
        )

    def asked(self) -> list[dict[str, Any]]:
        """Every retraining that was asked for, the newest first."""
        return [entry for entry in reversed(self._models.entries()) if entry["what"] == "retrain"]

    def pending(self) -> list[dict[str, Any]]:
        """Those that nothing came of yet, the oldest first."""
        entries = self._models.entries()
        done = {entry["of"] for entry in entries if entry["what"] in (RETRAINED, FAILED)}
        return [
            entry for entry in entries if entry["what"] == "retrain" and entry["id"] not in done
        ]

    def trained_until(self) -> str | None:
        """The time of the newest correction that a retraining has seen to its end."""
        found = [
            entry["trained_until"] for entry in self._models.entries() if entry["what"] == RETRAINED
        ]
        return max(found, default=None)

    def better(self) -> tuple[str, str] | None:
        """The last retraining and its candidate, where the verdict was sure, the live model is still the one that it was trained from, and nobody was asked to promote it."""
        entries = self._models.entries()
        last = next((entry for entry in reversed(entries) if entry["what"] == RETRAINED), None)
        if (
            last is None
            or last["verdict"] != BETTER
            or any(entry.get("retraining") == last["of"] for entry in entries)
        ):
            return None
        asked = next(entry for entry in entries if entry["id"] == last["of"])
        return (
            (last["of"], last["bundle"]) if asked["bundle"] == self._models.live(entries) else None
        )

    def state(self, one: str) -> dict[str, Any]:
        """Of a retraining: `status` waiting, running, done or failed; its progress in [0, 1], verdict, and the end of its log. Refused 404 for an unknown one."""
        entries = self._models.entries()
        asked = next(
            (entry for entry in entries if entry["id"] == one and entry["what"] == "retrain"), None
        )
        if asked is None:
            raise Refused(404, "not_found", f"{one[:80]}: no such retraining")
        outcome = next(
            (
                entry
                for entry in entries
                if entry["what"] in (RETRAINED, FAILED) and entry["of"] == one
            ),
            None,
        )
        folder = self._folder(one)
        status = (
            ("done" if outcome["what"] == RETRAINED else "failed")
            if outcome
            else "running"
            if (folder / "attempts.json").is_file()
            else "waiting"
        )
        found = {
            "id": one,
            "at": asked["at"],
            "bundle": asked["bundle"],
            "settings": asked["settings"],
            "status": status,
        }
        verdict = _json(folder / "run" / "verdict.json")
        return {
            **found,
            "progress": 1.0 if outcome else _progress(folder / "run"),
            "phase": _json(folder / "run" / "progress.json").get("phase", "")
            if not outcome
            else "",
            "attempts": len(_json(folder / "attempts.json").get("jobs", [])),
            "verdict": verdict or None,
            "candidate": outcome.get("bundle") if outcome else None,
            "why": outcome.get("why") if outcome else None,
            "ended": outcome["at"] if outcome else None,
            "log": self.log(one, _LOG_LINES),
        }

    def log(self, one: str, lines: int | None = None) -> str:
        """What the job printed, or the end of it."""
        try:
            text = (self._folder(one) / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def advance(self, asked: dict[str, Any]) -> None:
        """One look at a pending retraining: start it, or again where it died; note its outcome once there is one."""
        folder = self._folder(asked["id"])
        attempts = _json(folder / "attempts.json").get("jobs", [])
        client = JobSubmissionClient(ray.get_runtime_context().gcs_address)
        if attempts:
            info = next(
                (job for job in client.list_jobs() if job.submission_id == attempts[-1]), None
            )
            if info is not None and info.status in _BUSY:
                return
            if (folder / "run" / "verdict.json").is_file():
                self._finished(asked, folder)
                return
            most = (
                _MOST_ATTEMPTS if info is not None else _MOST_STARTS
            )  # a job that Ray does not know died with an earlier Ray
            if len(attempts) >= most or (
                info is not None and info.driver_exit_code == _USERS_MISTAKE
            ):
                self._note(
                    FAILED,
                    asked,
                    None,
                    self.log(asked["id"], 3) or f"the job did not start {len(attempts)} times",
                )
                return
        self._submit(asked, folder, attempts, client)

    def _submit(
        self, asked: dict[str, Any], folder: Path, attempts: list[str], client: JobSubmissionClient
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "corrections").is_dir():
            self._corrections.snapshot(folder / "corrections")
        words = [f"{key}={value}" for key, value in asked["settings"].items() if value is not None]
        command = [
            sys.executable,
            str(_PROJECT / "ray_jobs" / "retrain.py"),
            str(self._models.path(asked["bundle"])),
            str(folder / "corrections"),
        ]
        entrypoint = f"{shlex.join([*command, f'storage_path={folder}', 'output=run', *words])} >> {shlex.quote(str(folder / 'log.txt'))} 2>&1"
        job = f"lipi-retrain-{asked['id']}-{len(attempts) + 1}"
        write_json(
            folder / "attempts.json", {"jobs": [*attempts, job]}
        )  # first, so that no job runs that nobody knows of
        client.submit_job(
            entrypoint=entrypoint,
            submission_id=job,
            runtime_env={"env_vars": {"PYTHONPATH": str(_PROJECT), "LIPI_NICE": "10"}},
        )

    def _finished(self, asked: dict[str, Any], folder: Path) -> None:
        verdict = read_json(folder / "run" / "verdict.json")
        candidate = self._models.add(str(folder / "run" / "bundle"))
        until = max(_json(file)["timestamp"] for file in (folder / "corrections").glob("*.json"))
        self._note(
            RETRAINED,
            asked,
            candidate,
            "; ".join(verdict["why"]),
            verdict=verdict["verdict"],
            trained_until=until,
        )

    def _note(
        self, what: str, asked: dict[str, Any], bundle: str | None, why: str, **more: Any
    ) -> None:
        self._models.store.append(
            JOURNAL, {"what": what, "of": asked["id"], "bundle": bundle, "why": why, **more}
        )

    def _folder(self, one: str) -> Path:
        return Path(self._models.store.root) / "retrain" / one


def _json(file: Path) -> dict[str, Any]:
    """What a file says; nothing where it is not there yet."""
    try:
        return dict(read_json(file))
    except (OSError, ValueError):
        return {}


def _progress(run: Path) -> float:
    """How far the job is: its parts, and in a run the steps of metrics.jsonl."""
    told = _json(run / "progress.json")
    if not told:
        return 0.0
    within = 0.0
    if told.get("run"):
        try:
            lines = (run / told["run"] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            last = json.loads(lines[-1]) if lines else {"step": 0, "epoch": 0.0}
            within = (
                last["epoch"] / told["num_epochs"]
                if told["num_epochs"]
                else last["step"] / told["max_steps"]
            )
        except (OSError, ValueError, KeyError):
            within = 0.0
    return float(round(min(1.0, (told["part"] - 1 + min(1.0, within)) / told["parts"]), 3))
