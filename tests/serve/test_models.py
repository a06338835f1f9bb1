"""Models swap under load.

No request fails, every answer is of the one model that it names, and a bad bundle changes nothing.
"""

import shutil
from pathlib import Path

import pytest
import requests

from ocr.errors import UserError
from serve.model_list import advice_against
from serve.models import Models
from tests.support.buckets import bucket_server
from tests.support.commands import assert_refused, call
from tests.support.running import endpoint, loaded, shots_by_model


@pytest.mark.long
def test_promoting_and_going_back_under_load_loses_nothing_and_a_bad_bundle_changes_nothing(
    tmp_path: Path,
) -> None:
    shots, _ = shots_by_model()
    models = Models(str(tmp_path / "serve"))
    thai, broken = models.add("thai"), "base-thai@000000000000"
    with endpoint(tmp_path / "serve", "autoscaling.max_replicas=1") as running:
        odia = running.get("/readyz")["model"]
        replicas = {process.pid for process in running.processes("ServeReplica")}
        with loaded(running, shots) as outcome:
            for bundle in (thai, odia):
                assert running.promote(bundle)["what"] == "live"
                assert running.get("/readyz")["model"] == bundle
            shutil.copytree(tmp_path / "serve/models" / thai, tmp_path / "serve/models" / broken)
            damaged = tmp_path / "serve/models" / broken / "onnx-int8.onnx"
            damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
            found = running.promote(broken)
            assert found["what"] == "refused"
            assert "onnx-int8.onnx: missing or not the file that was written" in found["why"]
            assert running.get("/readyz")["model"] == odia
        assert set(outcome.statuses) == {200}
        assert (outcome.wrong, outcome.lost) == (0, 0), outcome.wrong_bodies[:3]
        assert outcome.statuses[200] > 100
        assert {process.pid for process in running.processes("ServeReplica")} == replicas, (
            "swapped in place"
        )
        unknown = requests.post(
            f"{running.address}/v1/models/promote", json={"bundle": "../../etc"}, timeout=10
        )
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "bad_request")
        told = [(entry["what"], entry["bundle"]) for entry in running.get("/v1/models/journal")]
        assert told == [
            ("deploy", odia),
            ("live", odia),
            *[(what, bundle) for bundle in (thai, odia) for what in ("promote", "live")],
            ("promote", broken),
            ("refused", odia),
        ]
        assert {model["id"]: model["live"] for model in running.get("/v1/models")["data"]}[
            odia
        ] is True
        again = call(
            "deploy", "thai", f"port={running.port}", f"storage_path={tmp_path / 'serve'}"
        )  # where it runs already
        assert (again.returncode, running.get("/readyz")["model"]) == (0, thai), again.stderr
    with endpoint(
        tmp_path / "serve", "autoscaling.max_replicas=1"
    ) as running:  # odia was deployed before, so what was promoted since goes on
        assert running.get("/readyz")["model"] == thai


def test_a_store_in_a_bucket_keeps_models_and_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with bucket_server():
        models = Models("s3://lipi/serve")
        odia = models.add("odia")
        assert models.ids() == [odia]
        promotion = models.promote(odia, "seen")
        assert [entry["id"] for entry in models.journal.pending()] == [promotion]
        models.journal.report(promotion, "replica", None)
        assert models.journal.reports(promotion) == {"replica": None}
        models.store.append("journal", {"what": "live", "of": promotion, "bundle": odia})
        assert (models.journal.live(), models.journal.pending()) == (odia, [])
        assert models.load(odia, None, "cpu").model == odia


def test_models_are_what_their_ids_say(tmp_path: Path) -> None:
    models = Models(str(tmp_path))
    odia, thai = models.add("odia"), models.add("thai")
    shutil.rmtree(tmp_path / "models" / odia)
    shutil.copytree(tmp_path / "models" / thai, tmp_path / "models" / odia)
    with pytest.raises(UserError, match="holds base-thai@"):
        models.path(odia)
    with pytest.raises(UserError, match="nothing@0: no such model here; there are: "):
        models.promote("nothing@0")
    with pytest.raises(UserError, match="no such model"):
        models.path("../models/" + thai)


def test_a_storage_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(
        call("deploy", "odia", f"storage_path={tmp_path / 'file'}"),
        "file/models/",
        "cannot be written",
    )


def test_a_promotion_against_the_gates_advice_says_so() -> None:
    entries = [
        {"what": "retrained", "bundle": "a-r1@1", "verdict": "refused", "why": "it forgets: CER"},
        {"what": "retrained", "bundle": "a-r1@2", "verdict": "better", "why": "held-out"},
        {"what": "promote", "bundle": "a-r1@1"},
    ]
    assert advice_against(entries, "a-r1@1") == "refused: it forgets: CER"
    assert [advice_against(entries, bundle) for bundle in ("a-r1@2", "a@0")] == [None, None]
