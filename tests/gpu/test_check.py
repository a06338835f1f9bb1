"""The GPU check: a phase runs on a CPU, and one that goes wrong costs only itself."""

import json
import re
from pathlib import Path

import pytest
import torch

from ocr.recognizers.vlm.find import find_base
from ocr.recognizers.vlm.settings import TinyVlmSettings
from tests.gpu import check, random_base
from tests.gpu.resume import first_difference
from tests.support.rehearsal import rehearsed

FAULTY = [
    check.Phase(name, f"tests.gpu.faulty:{name}", 1, limit_s)
    for name, limit_s in (("hanging", 18), ("crashing", 60), ("raising", 60), ("good", 60))
]


def test_a_phase_is_rehearsed_on_this_machine(tmp_path: Path) -> None:
    """The cheapest; `tests/faults/test_gpu_rehearsal.py` has all of them."""
    report = rehearsed(tmp_path, "--only", "ctc")
    assert {row["phase"] for row in report["rows"]} == {"ctc"}
    assert report["versions"]["torch"] == torch.__version__ and len(report["commit"]) == 40


def test_a_phase_that_hangs_or_dies_costs_only_itself(tmp_path: Path) -> None:
    table = check.Table(tmp_path, {})
    check.check(FAULTY, 300, table, ["--rehearse"], at_once=2)
    rows = {(row.phase, row.what): row for row in table.rows}
    assert rows["good", "work"].good and rows["hanging", "before"].good
    assert "hung" in rows["hanging", "end"].figures
    assert "status -6" in rows["crashing", "end"].figures
    assert "ValueError: the kernel was not found" in rows["raising", "end"].trace
    assert [row.phase for row in table.red if row.what == "end"] == [row.phase for row in table.red]
    assert len(json.loads((tmp_path / "gpu.json").read_text())["rows"]) == len(table.rows) == 6


def test_a_phase_that_no_time_is_left_for_is_red(tmp_path: Path) -> None:
    table = check.Table(tmp_path, {})
    check.check([check.Phase("late", "tests.gpu.faulty:good", 600, 600)], 1, table, [])
    assert "not started" in table.red[0].figures


def test_the_estimates_fit_nine_minutes_and_four_take_the_most_important() -> None:
    assert [phase.name for phase in check.chosen(9, [])] == [phase.name for phase in check.PHASES]
    few = [phase.name for phase in check.chosen(4, [])]
    assert few == ["preflight", "resume", "user", "odia"]
    assert check.__doc__
    told = dict(re.findall(r"^    (\w+) +(\d+)  \S", check.__doc__, re.MULTILINE))
    assert {phase.name: told[phase.name] for phase in check.PHASES} == {
        phase.name: str(phase.seconds) for phase in check.PHASES
    }


def test_what_travels_is_told_and_too_much_is_refused() -> None:
    text, fits = check.travelling(24_000_000, {"1.tar.xz": 28_000_000, "2.tar.xz": 34_000_000})
    assert fits and "24.0 MB of project + 34.0 MB (2.tar.xz) = 58.0 MB of 66" in text
    assert not check.travelling(34_000_000, {"2.tar.xz": 34_000_000})[1]
    tracked, _ = check.sizes()
    assert tracked + 29_000_000 <= check.MOST_TRAVELLING_BYTES, "Ray's archive no longer fits"


def test_the_first_difference_is_named() -> None:
    one = {"weights": {"a": torch.zeros(3), "b": torch.ones(2)}, "optimizer": [{"step": 3}]}
    other = {"weights": {"a": torch.zeros(3), "b": torch.tensor([1.0, 1.5])}, "optimizer": []}
    assert first_difference(one, one) == ""
    assert first_difference(one, other) == "weights.b by up to 5.0e-01"
    assert first_difference({"x": [1, 2]}, {"x": [1]}) == "x: 2 and 1 values"


@pytest.mark.parametrize("architecture", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("in_4_bits", [False, True])
def test_a_random_base_is_built_as_transformers_loads_one(
    architecture: str, in_4_bits: bool
) -> None:
    settings = TinyVlmSettings(
        architecture=architecture,  # type: ignore[arg-type]
        base_steps=0,
        load_in_4bit=in_4_bits,
    )
    base = find_base(settings)
    loaded = base.load(settings, torch.bfloat16, "cpu")
    with random_base.random_weights("cpu"):
        made = base.load(settings, torch.bfloat16, "cpu")
    kinds = [
        {name: type(module).__name__ for name, module in model.named_modules()}
        for model in (made, loaded)
    ]
    assert kinds[0] == kinds[1]
    for tensors in ("named_parameters", "named_buffers"):
        shapes = [
            {name: (tensor.dtype, tensor.shape) for name, tensor in getattr(model, tensors)()}
            for model in (made, loaded)
        ]
        assert shapes[0] == shapes[1]
