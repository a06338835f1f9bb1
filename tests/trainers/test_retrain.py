"""The promotion gate's decisions, how corrections are divided, and a whole retraining."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.evaluation import Evaluation, Line, compare
from ocr.images import encode_image, open_image
from ocr.recognizers.factory import load
from ocr.retraining import BETTER, REFUSED, UNSURE, RetrainConfig
from tests.support.tiny import train_here
from trainers.retrain.gate import decide
from trainers.retrain.run import divided, retrain

TEXT = "abcdefghijklmnopqrst"


def evaluation(errors: list[int]) -> Evaluation:
    """Lines of 20 characters with so many wrong in each."""
    return Evaluation(
        tuple(
            Line(place, f"line {place}", TEXT, "#" * wrong + TEXT[wrong:], 0.9)
            for place, wrong in enumerate(errors)
        )
    )


def drawn(mean: float, lines: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).poisson(mean, lines).clip(0, 20).tolist()


SAME = compare(evaluation(drawn(1.0, 800)), evaluation(drawn(1.0, 800)))


def test_clearly_better_on_held_out_lines_is_better() -> None:
    verdict = decide(
        SAME,
        compare(evaluation(drawn(4, 60)), evaluation(drawn(1, 60, 2))),
        held_out=True,
        max_loss=0.005,
    )
    assert (verdict.verdict, verdict.judged_by) == (BETTER, "held-out lines")
    assert verdict.corrections.high < 0
    assert all(line["kind"] == "correction" for line in verdict.worse)


def test_a_difference_that_the_lines_do_not_show_is_refused() -> None:
    verdict = decide(
        SAME,
        compare(evaluation(drawn(2.0, 60)), evaluation(drawn(1.9, 60, 3))),
        held_out=True,
        max_loss=0.005,
    )
    assert verdict.verdict == REFUSED
    assert "not better beyond doubt on held-out corrections" in verdict.why[0]
    assert verdict.worse


def test_what_forgets_is_refused_however_well_it_reads_the_corrections() -> None:
    forgot = compare(
        evaluation(drawn(1.0, 800)),
        evaluation([wrong + (place % 5 == 0) for place, wrong in enumerate(drawn(1.0, 800))]),
    )
    verdict = decide(
        forgot,
        compare(evaluation(drawn(4, 60)), evaluation([0] * 60)),
        held_out=True,
        max_loss=0.005,
    )
    assert verdict.verdict == REFUSED
    assert verdict.why[0].startswith("it forgets: CER")
    assert {line["kind"] for line in verdict.worse} == {"base"}
    assert (
        decide(
            forgot,
            compare(evaluation(drawn(4, 60)), evaluation([0] * 60)),
            held_out=True,
            max_loss=0.05,
        ).verdict
        == BETTER
    )


@pytest.mark.parametrize(("new", "verdict"), [(2, UNSURE), (5, REFUSED)])
def test_of_few_lines_the_folds_total_decides_and_a_person(new: int, verdict: str) -> None:
    found = decide(
        SAME, compare(evaluation([4] * 12), evaluation([new] * 12)), held_out=False, max_loss=0.005
    )
    assert (found.verdict, found.judged_by) == (verdict, "folds")
    assert f"48 → {12 * new}" in found.why[0]


@given(st.lists(st.integers(0, 12).map(str), min_size=10, max_size=80), st.integers(2, 6))
def test_parts_are_alike_and_tear_no_page_apart(groups: list[str], parts: int) -> None:
    found = divided(groups, parts)
    assert sorted(place for part in found for place in part) == list(range(len(groups)))
    assert found == divided(groups, parts)
    assert all(found)
    if len(set(groups)) >= parts:
        assert all(
            len(
                {
                    number
                    for number, part in enumerate(found)
                    for place in part
                    if groups[place] == group
                }
            )
            == 1
            for group in set(groups)
        )
    else:
        assert max(map(len, found)) - min(map(len, found)) <= 1


def twelve_corrections(folder: Path) -> Path:
    data = Dataset.open("odia_words", "validation")
    folder.mkdir()
    for index in range(12):
        image = encode_image(open_image(data.image_bytes(index)))
        (folder / f"{index:02}.png").write_bytes(image)
        text = json.dumps({"corrected_text": data.texts[index]}, ensure_ascii=False)
        (folder / f"{index:02}.json").write_text(text)
    return folder


def test_it_ends_with_a_verdict_and_a_bundle_that_can_be_trained_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrections = twelve_corrections(tmp_path / "corrections")
    values = {
        "bundle": "odia",
        "corrections": str(corrections),
        "storage_path": str(tmp_path / "runs"),
        "replay": "odia_few_words",
    }
    config = RetrainConfig.model_validate({**values, "folds": 2, "max_steps": 4})
    done = retrain(config, train_here, "the command")
    found = json.loads((done.output / "verdict.json").read_text())
    assert found["verdict"] in (BETTER, UNSURE, REFUSED)
    assert (
        found["judged_by"],
        found["corrections"]["samples"],
        found["samples"],
        found["command"],
    ) == ("folds", 12, 12, "the command")
    bundle = open_bundle(done.output / "bundle")
    assert (bundle.name, found["candidate"]) == (
        "base-odia-r1",
        f"base-odia-r1@{bundle.sha256[:12]}",
    )
    assert set(bundle.backends) == set(open_bundle(Path("odia")).backends)
    assert set(Dataset.open(str(bundle.path), "train").texts) <= set(
        Dataset.open("odia_few_words", "train").texts
    )
    assert load(bundle.path).read([corrections / "00.png"])[0].text
    assert str(done).splitlines()[-1].startswith(f"{found['candidate']}: {found['verdict']}")
    capsys.readouterr()
    assert retrain(config, train_here, "the command").values == found
    assert "this retraining is finished" in capsys.readouterr().out
