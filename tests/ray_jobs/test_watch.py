"""What watch.py shows of a run that goes on, was killed, or has ended."""

import json
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ocr.errors import UserError
from ocr.processes import Process
from tests.support.commands import assert_refused, call, start
from tests.support.resuming import TINY_YAML, wait_for
from tests.support.tiny import tiny_config, tiny_context, tiny_task
from trainers.loop.checkpoint import directory_of
from trainers.loop.loop import fit
from trainers.watch.files import RunFiles
from trainers.watch.status import STALE_SECONDS, Status, status_of
from trainers.watch.view import sparkline, view, watch


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 of 40 steps, stopped and resumed at step 10."""
    torch.set_num_threads(1)
    config = tiny_config(tmp_path_factory.mktemp("runs"))
    for stop_after in (10, 20):
        fit(config, tiny_task(config), tiny_context(config), stop_after)
    return config.local_run_dir


def status(run_dir: Path, now: float | None = None) -> Status:
    return status_of(RunFiles(run_dir), now or time.time())


def shown(run_dir: Path, width: int = 100) -> str:
    text = StringIO()
    Console(file=text, width=width).print(view(status(run_dir)))
    return text.getvalue()


def test_a_stopped_run_shows_where_it_stands(run_dir: Path) -> None:
    found = status(run_dir)
    assert (found.step, found.max_steps, found.checkpoint, found.restarts) == (20, 40, 20, 1)
    assert found.workers == 1
    assert [step for step, _ in found.error_rates] == [8, 16]
    assert found.last_event == "continues exactly, from step 10"
    assert found.goodput is not None and 0 < found.goodput <= 1
    evaluation = json.loads((run_dir / "checkpoint_000016.eval.json").read_text())
    assert found.sample == evaluation["inference_check"]
    text = shown(run_dir)
    for part in ("20 of 40", "1 restart", "step 20", evaluation["inference_check"]["reference"]):
        assert part in text


def test_a_silent_run_is_not_called_live(run_dir: Path) -> None:
    lease = run_dir / "lease.json"
    now = time.time()
    lease.write_text(json.dumps({"host": "here", "pid": 7, "renewed_at": now}))
    assert status(run_dir, now + 5).state == "under way on here, process 7"
    assert status(run_dir, now + 5).eta_seconds is not None
    silent = status(run_dir, now + STALE_SECONDS + 30)
    assert silent.state == "no sign of life for 90 s; the same command resumes it"
    assert not silent.is_live and silent.eta_seconds is None
    lease.unlink()


def test_a_run_of_this_machine_is_live_as_long_as_its_process(run_dir: Path) -> None:
    lease, me = run_dir / "lease.json", Process.current()
    lease.write_text(json.dumps({**me.as_json(), "renewed_at": 0.0}))  # whatever the clock says
    assert status(run_dir).state == f"under way on {me.host}, process {me.pid}"
    gone = replace(me, started="1")
    lease.write_text(json.dumps({**gone.as_json(), "renewed_at": time.time()}))
    assert status(run_dir).state == f"process {me.pid} has ended; the same command resumes it"
    assert not status(run_dir).is_live
    lease.unlink()


def test_lines_that_are_half_written_are_counted_and_no_error(run_dir: Path) -> None:
    whole = status(run_dir)
    with open(run_dir / "metrics.jsonl", "a") as metrics:
        metrics.write('{"step": 21, "lo')
    assert status(run_dir).step == whole.step
    assert status(run_dir).unreadable == 1
    assert "1 in metrics.jsonl and timings.jsonl" in shown(run_dir)


def test_a_run_that_has_logged_nothing_yet_is_shown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run_name: new\ntrain: {max_minutes: 5}\n")
    text = shown(tmp_path)
    assert "0 of a number not known yet" in text and "none yet" in text


def test_curves_keep_their_shape_in_a_few_columns() -> None:
    rising = [(float(step), step - 500.0) for step in range(1000)]
    assert sparkline(rising, 8) == "▁▂▃▄▅▆▇█"
    halving = [(float(step), 2.0**-step) for step in range(8)]
    assert sparkline(halving) == "█▇▆▅▄▃▂▁"
    assert sparkline([(1, 2.0), (2, 2.0)]) == "▁▁"
    assert sparkline([]) == ""


@pytest.mark.long
def test_a_real_run_is_watched_from_another_process_until_it_ends(tmp_path: Path) -> None:
    driver = start("train", TINY_YAML, f"storage_path={tmp_path}", "train.max_steps=200")
    run_dir = tmp_path / "tiny"
    wait_for(directory_of(run_dir, 10))
    once = call("watch", run_dir, "--once")
    assert once.returncode == 0 and "under way on" in once.stdout, once.stderr
    screen = StringIO()
    watch(run_dir, console=Console(file=screen, force_terminal=True, width=100))
    assert driver.wait(60) == 0
    assert "200 of 200" in screen.getvalue()
    driver.communicate()
    after = call("watch", run_dir)
    assert "finished" in after.stdout and "200 of 200" in after.stdout


def test_what_is_no_run_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    assert_refused(call("watch", tmp_path / "none"), "none: no such folder; expected a run")
    assert_refused(call("watch", tmp_path), "not a run (neither config.yaml nor metrics.jsonl")
    with pytest.raises(UserError, match="not a run"):
        RunFiles(tmp_path)
