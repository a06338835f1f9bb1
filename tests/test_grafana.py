"""Every metric that a panel of configs/grafana/lipi.json shows is in a scrape of a real process."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import load
from tests.support.commands import PROJECT, environment
from tests.support.running import endpoint, free_port
from trainers.loop.exported import Exported

DASHBOARD = json.loads((PROJECT / "configs/grafana/lipi.json").read_text())
NAME = re.compile(r"\bray_\w+")
# as `train.py configs/tiny.yaml`, in a Ray of its own that exports at a known port
TRAIN = """
import logging, sys
from pathlib import Path
from ocr.local_ray import start_local_ray
from ocr.settings import load_settings
from trainers import on_ray
from trainers.config import TrainConfig
from trainers.runs.launch import launch
port, storage, temporary = sys.argv[1:4]
start_local_ray(num_cpus=1, include_dashboard=False,
                _metrics_export_port=int(port), _temp_dir=temporary, log_to_driver=False,
                logging_level=logging.ERROR)
words = [f"storage_path={storage}", "train.max_steps=20000", "train.num_epochs=null"]
launch(load_settings(TrainConfig, Path("configs/tiny.yaml"), words), on_ray.train, "test")
"""


def wanted(training: bool) -> set[str]:
    """The metrics of all panels, and of the variable that lists runs."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    asked += [each.get("definition", "") for each in DASHBOARD["templating"]["list"]]
    names = {name for text in asked for name in NAME.findall(text)}
    return {name for name in names if name.startswith("ray_lipi_train_") == training}


def wait_for_all(names: set[str], scrape: Callable[[], str], seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while True:
        text = scrape()
        missing = {name for name in names if not re.search(rf"^{name}\{{", text, re.MULTILINE)}
        if not missing:
            return text
        assert time.monotonic() < deadline, f"{sorted(missing)} in none of\n{text[-3000:]}"
        time.sleep(0.5)


def scraped(address: str) -> str:
    try:
        return requests.get(f"{address}/metrics", timeout=5).text
    except requests.RequestException:  # not up yet
        return ""


@pytest.mark.long
def test_a_run_exports_all_that_the_training_panels_show(tmp_path: Path) -> None:
    port, ray_dir = free_port(), f"/tmp/lipi-ray-{free_port()}"  # Ray's sockets need a short path
    run = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(port), str(tmp_path), ray_dir],
        cwd=PROJECT,
        env=environment(RAY_metrics_report_interval_ms="1000", PYTHONPATH=str(PROJECT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        text = wait_for_all(wanted(True), lambda: scraped(f"http://127.0.0.1:{port}"), 240)
        time.sleep(4)  # gauges that one line in many sets stay, between their lines too
        again = scraped(f"http://127.0.0.1:{port}")
    finally:
        run.terminate()
        out, _ = run.communicate(timeout=60)
        subprocess.run(["rm", "-rf", ray_dir], check=True)
    assert len(wanted(True)) > 10
    assert 'run="tiny"' in text
    assert "metrics for Prometheus ended" not in out
    for name in wanted(True):
        assert re.search(rf"^{name}\{{", again, re.MULTILINE), f"{name} is gone"
    goodput = re.search(r"^ray_lipi_train_goodput\{.*\} ([\d.]+)$", text, re.MULTILINE)
    assert goodput and 0 < float(goodput[1]) <= 1


@pytest.mark.long
def test_an_endpoint_exports_all_that_the_serving_panels_show(tmp_path: Path) -> None:
    image = load.odia_words(1)[0][0]
    with endpoint(tmp_path, RAY_metrics_report_interval_ms="1000") as running:
        answered = requests.post(
            f"{running.address}/v1/ocr", data=image, headers={"Content-Type": "image/webp"}
        )
        assert answered.ok
        wait_for_all(wanted(False), lambda: scraped(running.address), 120)
    assert len(wanted(False)) > 5


def test_the_dashboard_can_be_provisioned() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    kinds = {each["name"]: each["type"] for each in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "run": "query"}
    assert "__inputs" not in DASHBOARD  # a file with inputs can be imported by hand only
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"] == source for panel in panels)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in DASHBOARD["panels"]
        for dx in range(panel["gridPos"]["w"])
        for dy in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"


def test_gauges_that_fail_end_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def gauge(*_: object) -> Any:
        raise RuntimeError("no Ray here")

    with Exported("tiny", tmp_path, gauge) as exported:
        for step in range(3):
            exported.line({"step": step, "loss": float("nan")})
    assert capsys.readouterr().out.count("ended, the run continues: no Ray here") == 1
