"""README's commands for a cluster, typed as they stand there."""

from pathlib import Path

import pytest

from ocr.errors import UserError
from ocr.ray_address import require_cluster
from tests.support.clusters import README_PORTS, fresh_home, is_free, run_readme_block
from tests.support.commands import assert_refused, call

SMALL = "data.max_train_samples=300 data.max_validation_samples=50 model.size=small"


@pytest.mark.skipif(not all(map(is_free, README_PORTS)), reason="Ray's ports are taken")
def test_readmes_cluster_block_works_for_a_user_who_never_ran_ray() -> None:
    with fresh_home() as env:
        done = run_readme_block(env, f"{SMALL} list_samples=only")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "configs/odia_ctc.yaml: the Ray cluster at" in done.stdout
        assert (Path(env["HOME"]) / ".ray" / "auth_token").is_file()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nonsense"])
def test_an_address_where_no_cluster_answers_is_one_line(address: str, tmp_path: Path) -> None:
    done = call("train", "configs/tiny.yaml", f"storage_path={tmp_path}", RAY_ADDRESS=address)
    assert_refused(done, f"RAY_ADDRESS={address}: no Ray cluster answers", "unset RAY_ADDRESS")
    assert len(done.stderr.splitlines()) == 1


def test_the_address_that_jobs_are_sent_to_is_told_from_a_clusters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(UserError, match=r"expected HOST:PORT.*ray job submit"):
        require_cluster()
    for alone in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", alone)
        assert not require_cluster()
