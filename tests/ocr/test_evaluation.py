"""Two recognisers compared on the same lines: certain and random differences, and changed lines."""

import numpy as np
import pytest

from ocr.errors import UserError
from ocr.evaluation import Evaluation, Line, compare


def evaluation(readings: list[str], reference: str = "abcdefghij") -> Evaluation:
    return Evaluation(
        tuple(
            Line(number, f"line {number}", reference, reading, 1.0)
            for number, reading in enumerate(readings)
        )
    )


def spoilt(errors: int) -> str:
    return "x" * errors + "abcdefghij"[errors:]


def test_equal_readings_differ_by_nothing() -> None:
    comparison = compare(evaluation([spoilt(1)] * 5), evaluation([spoilt(1)] * 5))
    assert (comparison.difference, comparison.low, comparison.high, comparison.changed) == (
        0,
        0,
        0,
        [],
    )


def test_one_line_in_fifty_is_chance_and_every_second_is_none() -> None:
    old = evaluation([spoilt(1)] * 50)
    chance = compare(old, evaluation([spoilt(0)] + [spoilt(1)] * 49))
    assert (
        chance.difference == pytest.approx(-0.002)
        and chance.low < 0 <= chance.high + 1e-12
        and "no difference that these samples show" in str(chance)
    )
    sure = compare(old, evaluation([spoilt(0), spoilt(1)] * 25))
    assert (
        sure.difference == pytest.approx(-0.05)
        and sure.high < 0
        and "the new one is better" in str(sure)
    )
    assert "the new one is worse" in str(compare(evaluation([spoilt(0)] * 50), old))


def test_the_interval_is_the_one_that_theory_gives() -> None:
    """Line differences of variance v on n lines of ten characters: ± 1.96 √(v/n) / 10."""
    draw = np.random.Generator(np.random.Philox(key=5))
    errors = draw.integers(0, 4, (2, 400))
    old, new = (evaluation([spoilt(int(count)) for count in row]) for row in errors)
    comparison, gained = compare(old, new), errors[1] - errors[0]
    half = 1.96 * gained.std() / 20 / 10
    assert comparison.low == pytest.approx(
        comparison.difference - half, abs=0.1 * half
    ) and comparison.high == pytest.approx(comparison.difference + half, abs=0.1 * half)


def test_changed_lines_come_with_the_worst_first() -> None:
    old, new = (
        evaluation([spoilt(1), spoilt(2), spoilt(0), spoilt(3)]),
        evaluation([spoilt(0), spoilt(2), spoilt(5), "y" + spoilt(3)[1:]]),
    )
    comparison = compare(old, new)
    assert [line.id for line, _ in comparison.changed] == ["line 2", "line 3", "line 0"]
    assert "3 of 4 lines changed: 1 better, 1 worse" in str(comparison)


def test_other_samples_are_no_comparison() -> None:
    with pytest.raises(UserError, match="two evaluations of the same samples"):
        compare(evaluation(["a"]), evaluation(["a", "b"]))
