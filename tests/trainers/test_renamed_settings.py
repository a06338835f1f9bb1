"""A setting that was renamed: its old name is refused with the new one, old runs still resume."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ocr.errors import UserError
from ocr.settings import load_settings
from tests.support.tiny import TINY, tiny_config, tiny_context, tiny_task, train_here
from trainers.config import TrainConfig, config_of_run
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.runs.identity import identity
from trainers.runs.launch import launch

RENAMED = {"list_samples": "verify", "skip_preflight": "skip_verification"}


def with_old_names(file: Path) -> None:
    """Write a run's config as a version before the renaming did."""
    values = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({RENAMED.get(key, key): values[key] for key in values}))


@pytest.mark.parametrize(("new", "old"), RENAMED.items())
def test_an_old_name_in_a_config_or_a_command_names_the_new_one(
    new: str, old: str, tmp_path: Path
) -> None:
    message = f"{old} is called {new} now"
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**TINY, old: True}))
    with pytest.raises(UserError, match=message):
        load_settings(TrainConfig, file)
    file.write_text(yaml.safe_dump(TINY))
    with pytest.raises(UserError, match=message):
        load_settings(TrainConfig, file, [f"{old}=true"])


def test_a_run_made_before_resumes_and_keeps_its_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path, train={"max_steps": 4, "save_steps": 2, "eval_steps": 4})
    started: list[RunContext] = []

    def stop_early(job: Any) -> None:
        started.append(tiny_context(job.config))
        fit(job.config, tiny_task(job.config), started[0], stop_after=2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(config, stop_early, "the command")
    file = config.local_run_dir / "config.yaml"
    with_old_names(file)
    assert "skip_verification" in file.read_text()
    fingerprints = {"train": "a", "validation": "b"}
    assert identity(config_of_run(file), fingerprints) == identity(config, fingerprints)
    assert not launch(config, train_here, "the command").was_finished
    assert "skip_verification" not in file.read_text()
    assert "continues exactly, from step 2" in (file.parent / "timings.jsonl").read_text()
    capsys.readouterr()
