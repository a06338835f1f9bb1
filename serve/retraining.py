"""Retrainings from the endpoint: asked for in the journal, run as Ray jobs, one at a time.

A job of `ray_jobs/retrain.py` that dies is started again and resumes.

retrain/ID/corrections/ (a snapshot), attempts.json (Ray's jobs), log.txt, run/ (progress.json,
verdict.json, bundle/). In a bucket log_N.txt is what Ray has of the job N, brought there at each
look.
"""

import contextlib
import shlex
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.job_submission import JobStatus, JobSubmissionClient

from ocr.errors import first_line
from ocr.mirror import copied
from ocr.place import Place
from ocr.retraining import (
    BETTER,
    CLUSTER_AWAY,
    MIN_CORRECTIONS,
    PROGRESS_FILE,
    USER_MISTAKE,
    VERDICT_FILE,
    GateSettings,
)
from ocr.this_machine import past_proxies
from serve.corrections import Corrections
from serve.errors import Refused
from serve.journal import Entry
from serve.models import Models
from serve.retraining_progress import ATTEMPTS, RUN, progress_of, seconds_left, stored
from serve.store import is_private

RETRAINED, FAILED, STOPPED = "retrained", "retrain_failed", "retrain_stopped"
STOP = "retrain_stop"  # asked for; STOPPED once the job has ended
_OUTCOMES = (RETRAINED, FAILED, STOPPED)
_STATUS = {RETRAINED: "done", FAILED: "failed", STOPPED: "stopped"}
_CORRECTIONS = "corrections"
_PROJECT = Path(__file__).resolve().parent.parent
_MAX_ATTEMPTS, _MAX_STARTS, _LOG_LINES = 3, 10, 40
_BUSY = (JobStatus.PENDING, JobStatus.RUNNING)


class Retrainings:
    """The retrainings of an endpoint; requests ask and look, the promoter acts."""

    def __init__(
        self, models: Models, corrections: Corrections, gate: GateSettings | None = None
    ) -> None:
        self._models, self._corrections, self._journal = models, corrections, models.journal
        self._gate = gate or GateSettings()
        self._failing_since: dict[str, float] = {}
        self.patience_s = 60.0  # of tries to give Ray a job

    def ask(self, settings: dict[str, Any], by: str | None = None) -> str:
        """Add a retraining to the journal; return its id. `by`: the name of the key that asks.

        Refused 409 while one is under way; 422 with too few corrections, or where the live model
        cannot be trained further.
        """
        if pending := self.pending():
            message = f"retraining {pending[0]['id']} is under way; one runs at a time"
            raise Refused(409, "under_way", message)
        live = self._journal.live()
        if live is None or "," in live:
            message = f"{live}: several models vote; promote one of them, then retrain"
            raise Refused(422, "several_models", message)
        if (count := len(self._corrections.records())) < MIN_CORRECTIONS:
            message = f"{count} corrections; at least {MIN_CORRECTIONS} are needed"
            raise Refused(422, "too_few_corrections", message)
        named = {"by": by} if by else {}
        return self._journal.append(what="retrain", bundle=live, settings=settings, **named)

    def stop(self, id: str, by: str | None = None) -> None:
        """Ask for the end of a retraining; Refused 404 for an unknown one, 409 for an ended one."""
        state = self.state(id)
        if state["ended"]:
            raise Refused(409, "ended", f"retraining {id} is {state['status']} already")
        if state["status"] != "stopping":
            named = {"by": by} if by else {}
            self._journal.append(what=STOP, of=id, bundle=state["bundle"], **named)

    def asked(self) -> list[Entry]:
        """Return all retrainings that were asked for, the newest first."""
        return [entry for entry in reversed(self._journal.entries()) if entry["what"] == "retrain"]

    def pending(self) -> list[Entry]:
        """Return retrainings without an outcome, the oldest first."""
        entries = self._journal.entries()
        done = {entry["of"] for entry in entries if entry["what"] in _OUTCOMES}
        return [
            entry for entry in entries if entry["what"] == "retrain" and entry["id"] not in done
        ]

    def trained_until(self) -> str | None:
        """Return the time of the newest correction in a finished retraining."""
        entries = self._journal.entries()
        times = [entry["trained_until"] for entry in entries if entry["what"] == RETRAINED]
        return max(times, default=None)

    def better(self) -> tuple[str, str] | None:
        """Return the last retraining and its candidate where it can be promoted without a person.

        Its verdict was sure, the live model is the one it was trained from, and no promotion of it
        was asked for yet.
        """
        entries = self._journal.entries()
        last = next((entry for entry in reversed(entries) if entry["what"] == RETRAINED), None)
        if last is None or last["verdict"] != BETTER:
            return None
        if any(entry.get("retraining") == last["of"] for entry in entries):
            return None
        asked = next(entry for entry in entries if entry["id"] == last["of"])
        is_current = asked["bundle"] == self._journal.live(entries)
        return (last["of"], last["bundle"]) if is_current else None

    def state(self, id: str) -> dict[str, Any]:
        """Return a retraining's status, progress in [0, 1], verdict, and the end of its log.

        The status is waiting, running, stopping, done, failed or stopped. Refused 404 for an
        unknown id.
        """
        entries = self._journal.entries()
        asked = next((entry for entry in entries if entry["id"] == id), None)
        if asked is None or asked["what"] != "retrain":
            raise Refused(404, "not_found", f"{id[:80]}: no such retraining")
        outcomes = (entry for entry in entries if entry["what"] in _OUTCOMES)
        outcome = next((entry for entry in outcomes if entry["of"] == id), None)
        place = self._place(id)
        running = {} if outcome else stored(place, f"{RUN}/{PROGRESS_FILE}")
        progress = 1.0 if outcome else progress_of(place)
        return {
            "id": id,
            "at": asked["at"],
            "bundle": asked["bundle"],
            "settings": asked["settings"],
            "by": asked.get("by"),
            "status": _status(outcome, _stop_of(entries, id), place),
            "progress": progress,
            "seconds_left": None if outcome else seconds_left(place, progress),
            "phase": running.get("phase", ""),
            "attempts": len(stored(place, ATTEMPTS).get("jobs", [])),
            "verdict": stored(place, f"{RUN}/{VERDICT_FILE}") or None,
            "candidate": outcome.get("bundle") if outcome else None,
            "why": outcome.get("why") if outcome else None,
            "ended": outcome["at"] if outcome else None,
            "log": self.log(id, _LOG_LINES),
        }

    def log(self, id: str, lines: int | None = None) -> str:
        """Return the output of the jobs, or its last `lines`."""
        place = self._place(id)
        count = 1 if place.is_local else len(stored(place, ATTEMPTS).get("jobs", []))
        text = ""
        for attempt in range(1, count + 1):
            with contextlib.suppress(OSError):  # it has not begun yet
                text += place.read(_log_name(place, attempt)).decode(errors="replace")
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def advance(self, asked: Entry) -> None:
        """Start a pending retraining, or again where its job died; note its outcome if any.

        One whose job Ray cannot take has failed, after a minute of tries.
        """
        try:
            self._advance(asked)
            self._failing_since.pop(asked["id"], None)
        except Exception as problem:
            since = self._failing_since.setdefault(asked["id"], time.monotonic())
            if time.monotonic() - since < self.patience_s:
                raise
            why = f"Ray takes no job: {type(problem).__name__}: {first_line(problem)}"
            self._note(FAILED, asked, None, why)

    def _advance(self, asked: Entry) -> None:
        place = self._place(asked["id"])
        stop = _stop_of(self._journal.entries(), asked["id"])
        cluster = ray.get_runtime_context().gcs_address
        past_proxies([cluster.rpartition(":")[0]])
        client = JobSubmissionClient(cluster)
        jobs = {job.submission_id: job for job in client.list_jobs()}
        attempts = _attempts(asked["id"], place, jobs)
        if attempts:
            job = jobs.get(attempts[-1])
            if job is not None and not place.is_local:
                _keep_log(client, place, attempts)
            if job is not None and job.status in _BUSY:
                if stop:
                    client.stop_job(attempts[-1])
                return
        if stop:
            by = f" by {stop['by']}" if stop.get("by") else ""
            self._note(STOPPED, asked, None, f"stopped{by}")
            return
        if attempts:
            if stored(place, f"{RUN}/{VERDICT_FILE}"):
                self._finish(asked, place)
                return
            # a job that Ray does not know died with an earlier Ray
            is_start = job is None or job.driver_exit_code == CLUSTER_AWAY
            most = _MAX_STARTS if is_start else _MAX_ATTEMPTS
            is_mistake = job is not None and job.driver_exit_code == USER_MISTAKE
            if len(attempts) >= most or is_mistake:
                why = self.log(asked["id"], 3) or f"the job did not start {len(attempts)} times"
                self._note(FAILED, asked, None, why)
                return
        self._submit(asked, place, attempts, cluster)

    def _submit(self, asked: Entry, place: Place, attempts: list[str], cluster: str) -> None:
        if not place.has(ATTEMPTS):
            with copied(place / _CORRECTIONS) as folder:
                self._corrections.snapshot(folder)
        words = [f"{key}={value}" for key, value in asked["settings"].items() if value is not None]
        script = str(_PROJECT / "ray_jobs" / "retrain.py")
        bundle = self._models.address(asked["bundle"])
        command = [sys.executable, script, bundle, place / _CORRECTIONS]
        gate = f"gate.max_forgetting={self._gate.max_forgetting}"
        whole = shlex.join([*command, f"storage_path={place}", f"output={RUN}", gate, *words])
        job = f"{_job_name(asked['id'])}{len(attempts) + 1}"
        # before the job is submitted, so that no job runs unknown
        place.write_json(ATTEMPTS, {"jobs": [*attempts, job], "since": time.time()})
        # Ray gives a job "the" cluster of its machine: the first whose process it finds there
        own = f"RAY_ADDRESS={shlex.quote(cluster)}"
        private = "umask 077; " if not place.is_local or is_private(Path(place.path)) else ""
        log = f" >> {shlex.quote(place / _log_name(place, 1))} 2>&1" if place.is_local else ""
        JobSubmissionClient(cluster).submit_job(
            entrypoint=f"{private}{own} {whole}{log}",
            submission_id=job,
            runtime_env={"env_vars": {"PYTHONPATH": str(_PROJECT), "LIPI_NICE": "10"}},
        )

    def _finish(self, asked: Entry, place: Place) -> None:
        verdict = stored(place, f"{RUN}/{VERDICT_FILE}")
        candidate = self._models.add(place / f"{RUN}/bundle")
        corrections = [name for name in place.names(_CORRECTIONS) if name.endswith(".json")]
        until = max(str(stored(place, name).get("timestamp", "")) for name in corrections)
        facts = {"verdict": verdict["verdict"], "trained_until": until}
        self._note(RETRAINED, asked, candidate, "; ".join(verdict["why"]), **facts)

    def _note(self, what: str, asked: Entry, bundle: str | None, why: str, **more: Any) -> None:
        self._journal.append(what=what, of=asked["id"], bundle=bundle, why=why, **more)

    def _place(self, id: str) -> Place:
        return Place(f"{self._models.store.location}/retrain/{id}")


def _log_name(place: Place, attempt: int) -> str:
    """Return the file of a job's output; on a disk all jobs append to one."""
    return "log.txt" if place.is_local else f"log_{attempt}.txt"


def _keep_log(client: JobSubmissionClient, place: Place, attempts: Sequence[str]) -> None:
    """Bring what Ray has of the last job's output to the retraining."""
    with contextlib.suppress(RuntimeError):  # none yet, or the agent that has it is away
        said = client.get_job_logs(attempts[-1])
        place.write(_log_name(place, len(attempts)), said.encode())


def _status(outcome: Entry | None, stop: Entry | None, place: Place) -> str:
    if outcome:
        return _STATUS[outcome["what"]]
    if stop:
        return "stopping"
    return "running" if place.has(ATTEMPTS) else "waiting"


def _stop_of(entries: Sequence[Entry], id: str) -> Entry | None:
    """Return the entry that asks for the end of a retraining."""
    return next((entry for entry in entries if entry["what"] == STOP and entry["of"] == id), None)


def _job_name(id: str) -> str:
    return f"lipi-retrain-{id}-"


def _attempts(id: str, place: Place, jobs: Collection[Any]) -> list[str]:
    """Return the jobs of a retraining in their order; those Ray knows where the file is damaged."""
    noted = stored(place, ATTEMPTS).get("jobs")
    name = _job_name(id)
    known = [str(job) for job in jobs if str(job).startswith(name)]
    return noted or sorted(known, key=lambda job: int(job.removeprefix(name)))
