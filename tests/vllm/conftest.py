"""One tiny run, its adapter and its merged model, for all tests with vLLM."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ocr.settings import load_settings
from tests.support.commands import PROJECT
from tests.support.tiny import train_here
from trainers.config import TrainConfig
from trainers.runs.export import export_run
from trainers.runs.launch import launch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where vLLM is not installed; its warnings are its own."""
    skip = pytest.mark.skip(reason="vLLM is not installed here; make vllm runs these tests")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
            if importlib.util.find_spec("vllm") is None:
                item.add_marker(skip)


@pytest.fixture(scope="package")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose adapter reads words that its base cannot."""
    torch.set_num_threads(1)
    words = [
        f"storage_path={tmp_path_factory.mktemp('vllm')}",
        "train.max_steps=60",
        "train.eval_on_start=false",
    ]
    config = load_settings(TrainConfig, PROJECT / "configs" / "tiny_vlm.yaml", words)
    return launch(config, train_here, "the command").run_dir


@pytest.fixture(scope="package")
def merged(run_dir: Path) -> Path:
    return export_run(run_dir, ["format=merged", "export.merged_dtype=float32"]).bundle.path
