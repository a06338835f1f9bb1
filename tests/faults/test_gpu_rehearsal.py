"""All phases of the GPU check run, small, on a CPU, so that a GPU's minutes go to what it shows."""

from pathlib import Path

from tests.gpu import check
from tests.support.rehearsal import rehearsed


def test_the_rehearsal_is_green(tmp_path: Path) -> None:
    rows = rehearsed(tmp_path)["rows"]
    assert {row["phase"] for row in rows} == {phase.name for phase in check.PHASES}
