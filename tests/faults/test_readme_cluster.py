"""README's commands for a cluster to the end of the run, with and without a token beforehand."""

import subprocess
from pathlib import Path

import pytest

from tests.support.clusters import BIN, README_PORTS, fresh_home, is_free, run_readme_block

SMALL = "data.max_train_samples=300 data.max_validation_samples=50 model.size=small"


@pytest.mark.skipif(not all(map(is_free, README_PORTS)), reason="Ray's ports are taken")
@pytest.mark.parametrize("has_token", [False, True], ids=["no token", "a token"])
def test_readmes_cluster_block_trains(has_token: bool) -> None:
    with fresh_home() as env:
        token = Path(env["HOME"]) / ".ray" / "auth_token"
        if has_token:
            make = [str(BIN / "ray"), "get-auth-token", "--generate"]
            subprocess.run(make, env=env, check=True, capture_output=True, timeout=60)
        before = token.read_text() if has_token else None
        done = run_readme_block(env, SMALL)
        assert done.returncode == 0, done.stdout + done.stderr
        run = Path(env["HOME"]) / "lipi-runs" / "runs" / "odia-ctc"
        assert "odia-ctc: CER" in done.stdout
        assert (run / "report.html").is_file()
        assert before in (None, token.read_text())
