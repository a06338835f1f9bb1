"""The promotion gate's decisions, how corrections are divided, and a whole retraining."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr.bundle import open_bundle
from ocr.dataset.read import Dataset
from ocr.evaluation import Evaluation, Line, compare, evaluate
from ocr.images import open_image
from ocr.recognizers.factory import load
from ocr.retraining import BETTER, REFUSED, UNSURE, RetrainConfig
from ocr.sample import Reading
from tests.support.corrected import twelve_corrections
from tests.support.tiny import train_here
from trainers.retrain.first import first_of, id_of
from trainers.retrain.gate import decide
from trainers.retrain.run import divided, retrain
from trainers.retrain.work import Work

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
        max_forgetting=0.005,
    )
    assert (verdict.verdict, verdict.judged_by) == (BETTER, "held-out lines")
    assert verdict.corrections.high < 0
    assert all(line["kind"] == "correction" for line in verdict.worse)


def test_a_difference_that_the_lines_do_not_show_is_refused() -> None:
    verdict = decide(
        SAME,
        compare(evaluation(drawn(2.0, 60)), evaluation(drawn(1.9, 60, 3))),
        held_out=True,
        max_forgetting=0.005,
    )
    assert verdict.verdict == REFUSED
    assert "not better beyond doubt on held-out corrections" in verdict.why[0]
    assert len(verdict.why) == 1  # nothing was forgotten, so nothing of a limit for it
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
        max_forgetting=0.005,
    )
    assert verdict.verdict == REFUSED
    assert verdict.why[0].startswith("it forgets: CER")
    assert "→ 0 errors in 60 lines; if they count more, set gate.max_forgetting" in verdict.why[1]
    assert {line["kind"] for line in verdict.worse} == {"base"}
    assert (
        decide(
            forgot,
            compare(evaluation(drawn(4, 60)), evaluation([0] * 60)),
            held_out=True,
            max_forgetting=0.05,
        ).verdict
        == BETTER
    )


@pytest.mark.parametrize(("new", "verdict"), [(2, UNSURE), (5, REFUSED)])
def test_of_few_lines_the_folds_total_decides_and_a_person(new: int, verdict: str) -> None:
    found = decide(
        SAME,
        compare(evaluation([4] * 12), evaluation([new] * 12)),
        held_out=False,
        max_forgetting=0.005,
    )
    assert (found.verdict, found.judged_by) == (verdict, "folds")
    assert f"48 → {12 * new}" in found.why[0]


def worse_by(points: float, seed: int) -> Evaluation:
    """1,500 lines of a chain, so many points of CER above its first model's 5 %."""
    lost = np.random.default_rng(seed).random(1500) < points / 5
    wrong = np.array(drawn(1.0, 1500)) + lost
    return evaluation(wrong.clip(0, 20).tolist())


def test_three_retrainings_may_not_lose_three_times_what_one_may() -> None:
    """Each loses 0.3 points of 0.5 that are allowed; the second step is refused, and the third."""
    chain = [worse_by(0.3 * step, 7) for step in range(4)]
    gain = compare(evaluation(drawn(4, 60)), evaluation([0] * 60))
    alone = [
        decide(compare(old, new), gain, held_out=True, max_forgetting=0.005)
        for old, new in itertools.pairwise(chain)
    ]
    assert [verdict.verdict for verdict in alone] == [BETTER] * 3, "as each for itself"
    found = [
        decide(
            compare(chain[step - 1], chain[step]),
            gain,
            held_out=True,
            max_forgetting=0.005,
            since_first=compare(chain[0], chain[step]) if step > 1 else None,
        )
        for step in (1, 2, 3)
    ]
    assert [verdict.verdict for verdict in found] == [BETTER, REFUSED, REFUSED]
    assert found[1].why[0].startswith("it forgets, with the retrainings before it: CER")
    assert found[1].since_first is not None
    lost = found[1].since_first.new_cer - found[1].since_first.old_cer
    assert lost == pytest.approx(0.006, abs=1e-3)
    wide = decide(
        compare(chain[2], chain[3]),
        gain,
        held_out=True,
        max_forgetting=0.05,
        since_first=compare(chain[0], chain[3]),
    )
    assert wide.verdict == BETTER and "since the first model" in wide.why[0]


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


def read_all(bundle: Path, of: Evaluation) -> list[Reading]:
    """The bundle's readings of the validation lines that an evaluation has."""
    data = Dataset.open("odia_few_words", "validation")
    images = dict(zip(data.ids, map(data.image_bytes, range(len(data))), strict=True))
    return load(bundle).read([open_image(images[line.id]) for line in of.lines])


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
    done = retrain(config, Work(train_here), "the command")
    found = json.loads(Path(done.output, "verdict.json").read_text())
    assert found["verdict"] in (BETTER, UNSURE, REFUSED)
    assert (
        found["judged_by"],
        found["corrections"]["samples"],
        found["samples"],
        found["command"],
    ) == ("folds", 12, 12, "the command")
    bundle = open_bundle(f"{done.output}/bundle")
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
    assert retrain(config, Work(train_here), "the command").values == found
    assert "this retraining is finished" in capsys.readouterr().out
    assert (found["first"], found["since_first"]) == (found["of"], None)
    before = evaluate(load(bundle.path), Dataset.open(str(bundle.path), "validation"))
    first = first_of(bundle, before)
    assert first.model == found["of"]
    odia = [reading.text for reading in read_all(Path("odia"), before)]
    assert [line.reading for line in first.on(before).lines] == odia
    other = evaluate(load(bundle.path), Dataset.open("odia_words", "validation"), range(5))
    assert first_of(bundle, other).model == id_of(bundle)
    assert "what may be forgotten counts from base-odia-r1@" in capsys.readouterr().out
