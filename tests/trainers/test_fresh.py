"""New images in every epoch: another image of the same text, equal for the same epoch.

Resuming stays exact.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ocr.dataset.prepared import open_splits
from ocr.dataset.read import Dataset
from ocr.errors import UserError
from ocr.rendering.redraw import RenderProcess, Request
from ocr.settings import parse_settings
from ocr.sources.settings import SyntheticSettings
from tests.support.tiny import tiny_config
from trainers.families.ctc.redrawn_images import RedrawnImages
from trainers.families.splits import Subset
from trainers.loop.checkpoint import directory_of, verify_hashes
from trainers.loop.loop import fit
from trainers.loop.run_state import RunContext
from trainers.runs.identity import environment
from trainers.runs.job import Data, Job
from trainers.runs.launch import launch

WORDS = "ଓଡ଼ିଆ ଭାଷା ଲିପି ପଢ଼ିବା ଲେଖିବା ଗଛ ଫୁଲ ନଦୀ ପାହାଡ଼ ଆକାଶ ଘର ବହି କଲମ ପିଲା ମାଆ ବାପା ଗାଁ ସହର ରାସ୍ତା ପାଣି"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "words.txt"
    path.write_text(WORDS, encoding="utf-8")
    return str(path)


def source(texts: str, **changes: object) -> dict[str, object]:
    return {
        "format": "synthetic",
        "texts": [texts],
        "script": "Oriya",
        "fonts": ["Noto Sans Oriya"],
        "count": 24,
        "seed": 7,
        "on_the_fly": True,
        **changes,
    }


def test_every_pass_has_its_own_images_of_the_same_texts(texts: str) -> None:
    settings = parse_settings(SyntheticSettings, source(texts), "test")
    train, _ = open_splits([settings], None, 0.2, 0.01)
    fresh = RedrawnImages(train, Subset(train, range(len(train))))
    assert fresh.of(range(len(train)), 0) == {}
    second, again, third = (
        fresh.of(range(len(train)), 1),
        RedrawnImages(train, Subset(train, range(len(train)))).of([3, 1], 1),
        fresh.of([1, 3], 2),
    )
    assert set(second) == set(range(len(train)))
    assert np.array_equal(second[3], again[3]) and np.array_equal(second[1], again[1])
    assert not np.array_equal(second[1], third[1])


def test_two_sources_of_one_seed_are_refused(texts: str) -> None:
    settings = [
        parse_settings(SyntheticSettings, source(texts, level=level), "test")
        for level in ("word", "line")
    ]
    two = open_splits(settings, None, 0.2, 0.5)[0]
    with pytest.raises(UserError, match="two on_the_fly sources have the seed 7"):
        RedrawnImages(two, Subset(two, range(len(two))))


def test_a_run_on_fresh_images_resumes_exactly(texts: str, tmp_path: Path) -> None:
    ends = []
    for stops in ((), (3, 5)):
        data = {"train": [source(texts)], "validation_ratio": 0.3, "max_train_samples": None}
        config = tiny_config(
            tmp_path / str(len(stops)),
            data=data,
            train={"max_steps": 8, "save_steps": 8, "eval_steps": 8, "global_batch_size": 8},
        )

        def train(job: Job, stops: tuple[int, ...] = stops) -> None:
            for stop in (*stops, None):
                place = RunContext(
                    job.run_dir, job.run_id, job.attempt, environment(job.config, 1, "cpu", "fp32")
                )
                fit(
                    job.config,
                    Data.open(job.config).task(job.config, "cpu"),
                    place,
                    stop_after=stop,
                )

        outcome = launch(config, train, "c")
        assert outcome.report["epoch"] > 2
        ends.append(verify_hashes(directory_of(config.local_run_dir, 8)).weights())
    assert all(np.array_equal(ends[0][name].numpy(), ends[1][name].numpy()) for name in ends[0])


def test_the_drawing_process_ends_with_the_one_that_started_it(texts: str) -> None:
    code = (
        "import os\n"
        "from ocr.rendering.redraw import RenderProcess, Request\n"
        "from ocr.sources.settings import SyntheticSettings\n"
        "from ocr.settings import parse_settings\n"
        f"settings = parse_settings(SyntheticSettings, {source(texts)!r}, 't')\n"
        "process = RenderProcess()\n"
        "process.render([Request(settings, 'ଘର', 0, 1)])\n"
        "print(process._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(ended.stdout)
    for _ in range(100):
        if (
            not Path(f"/proc/{pid}").exists()
            or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        ):
            return
        subprocess.run(["sleep", "0.1"], check=True)
    raise AssertionError(f"process {pid} lives on")


def test_a_font_that_is_gone_is_named(texts: str) -> None:
    settings = parse_settings(SyntheticSettings, source(texts), "test")
    with pytest.raises(UserError, match=r"no installed font renders ଘ✗.*install the fonts"):
        RenderProcess().render([Request(settings, "ଘ✗", 0, 1)])


def test_the_embedded_data_set_is_not_drawn_anew() -> None:
    words = Dataset.open("odia_words", "train")
    assert RedrawnImages(words, Subset(words, range(2))).of([0, 1], 3) == {}
