"""The first line of train.py: soon, and what it says of a run that continues."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import PROJECT, start
from tests.support.tiny import tiny_config
from trainers.runs.first_line import first_line


def at(storage: Path, step: int, train: dict[str, Any], **state: Any) -> str:
    """The line of a run with a checkpoint of this step."""
    config = tiny_config(storage, train=train)
    folder = config.local_run_dir / f"checkpoint_{step:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    values = {"train": {"step": step, **state}, "environment": {}}
    (folder / "state.json").write_text(json.dumps(values))
    return first_line(config)


@pytest.mark.parametrize(
    ("seconds", "left"), [(10.0, "30 s"), (60.0, "3 min"), (4000.0, "3 h 20 min"), (0.0, None)]
)
def test_it_says_where_a_run_continues_and_how_long_it_takes(
    tmp_path: Path, seconds: float, left: str | None
) -> None:
    line = at(tmp_path, 1000, {"max_steps": 4000}, max_steps=4000, step_seconds=seconds)
    assert "tiny: continues from step 1,000 of 4,000" in line
    assert line.endswith(f", about {left} left" if left else "of 4,000")


def test_it_takes_the_newest_checkpoint_that_can_be_read(tmp_path: Path) -> None:
    at(tmp_path, 900, {"max_steps": 4000}, step_seconds=9.0)
    torn = at(tmp_path, 1_000_000, {"max_steps": 2_000_000})
    assert "from step 1,000,000 of 2,000,000" in torn
    (tmp_path / "tiny" / "checkpoint_1000000" / "state.json").write_text('{"train": {')
    assert "from step 900 of 4,000" in first_line(tiny_config(tmp_path, train={"max_steps": 4000}))


def test_a_length_that_was_learnt_is_said_and_one_that_changed_is_not(tmp_path: Path) -> None:
    minutes = {"max_steps": None, "max_minutes": 30}
    epochs = {"max_steps": None, "num_epochs": 3}
    run_dir = tiny_config(tmp_path).local_run_dir
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text("{}")  # of no config: nothing is known
    assert at(tmp_path, 10, minutes, max_steps=50).endswith("continues from step 10")
    for train in (minutes, epochs):
        written = tiny_config(tmp_path, train=train).model_dump_json()
        (run_dir / "config.yaml").write_text(written + "\n")
        assert "step 10 of 50" in at(tmp_path, 10, train, max_steps=50)
    more = {**epochs, "num_epochs": 5}
    assert at(tmp_path, 10, more, max_steps=50).endswith("continues from step 10")


def test_a_new_run_and_one_with_no_steps_left_say_so(tmp_path: Path) -> None:
    assert "tiny: a new run; " in first_line(tiny_config(tmp_path))
    assert "all 40 steps are taken" in at(tmp_path, 40, {"max_steps": 40})


def test_the_script_says_it_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    began = time.monotonic()
    process = start(
        "train", PROJECT / "configs" / "odia_ctc.yaml", f"storage_path={tmp_path}", "run_name=soon"
    )
    assert process.stdout
    line = process.stdout.readline()
    seconds = time.monotonic() - began
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert line.startswith(str(tmp_path / "soon")) and "a new run" in line
    assert seconds < 3 or sys.gettrace(), f"{seconds:.1f} s"
