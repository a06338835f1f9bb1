"""Confidence of a reading: the network's p(text | image), fitted to the share that is right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-9
_NEWTON_STEPS, _PULL = 30, 1.0
_BINS = 10
_LEAST_READINGS = 50


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence = sigmoid(slope × logit(p) + intercept) (Platt 2000); by default p itself."""

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise ValueError(f"expected finite numbers, got {self.slope} and {self.intercept}")

    def __call__(self, log_likelihood: float) -> float:
        """Return the calibrated probability that a reading of this log p(text | image) is right."""
        return 1 / (
            1
            + math.exp(
                -max(
                    -700.0,
                    min(700.0, self.slope * _logit(math.exp(log_likelihood)) + self.intercept),
                )
            )
        )

    @classmethod
    def fitted(cls, probabilities: Sequence[float], right: Sequence[bool]) -> "Calibration":
        """Return the maximum likelihood fit.

        It is p itself where readings are few, or all right or all wrong: such readings determine no
        fit.
        """
        if len(right) < _LEAST_READINGS or len(set(right)) < 2:
            return cls()
        given, wanted = np.array([[_logit(p), 1.0] for p in probabilities]), np.array(right, float)
        weights, start = np.array([1.0, 0.0]), np.array([1.0, 0.0])

        def loss(at: NDArray[np.float64]) -> float:
            scores = given @ at
            return float(
                (np.logaddexp(0.0, scores) - wanted * scores).sum()
                + 0.5 * _PULL * ((at - start) ** 2).sum()
            )

        for _ in range(_NEWTON_STEPS):
            fitted = 0.5 * (1 + np.tanh(0.5 * (given @ weights)))
            gradient = given.T @ (fitted - wanted) + _PULL * (weights - start)
            curvature = (given * (fitted * (1 - fitted))[:, None]).T @ given + _PULL * np.eye(2)
            step, share = np.linalg.solve(curvature, gradient), 1.0
            while loss(weights - share * step) > loss(weights) and share > _LEAST:
                share /= 2  # a whole Newton step can overshoot and then run away
            weights = weights - share * step
        return cls(float(weights[0]), float(weights[1])) if weights[0] > 0 else cls()


@dataclass(frozen=True, slots=True)
class Reliability:
    """Equal bins of readings by confidence: mean confidence, share that is right, count."""

    bins: tuple[tuple[float, float, int], ...]

    @property
    def expected_error(self) -> float:
        """The expected calibration error: mean |confidence − share| (Guo et al. 2017, eq. 3)."""
        total = sum(count for _, _, count in self.bins)
        return (
            sum(abs(confidence - share) * count for confidence, share, count in self.bins) / total
            if total
            else 0.0
        )


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> Reliability:
    """Compare confidence with truth in ten bins of equal count."""
    order = np.argsort(np.array(confidences), kind="stable")
    parts: list[NDArray[np.int64]] = [part for part in np.array_split(order, _BINS) if len(part)]
    truth = np.array(right, float)
    given = np.array(confidences)
    return Reliability(
        tuple((float(given[part].mean()), float(truth[part].mean()), len(part)) for part in parts)
    )


def fitted_with_error(
    probabilities: Sequence[float], right: Sequence[bool]
) -> tuple[Calibration, Reliability]:
    """Return the calibration of all readings, and its reliability, measured by cross-fitting."""
    honest = reliability(cross_fitted(probabilities, right), right)
    return Calibration.fitted(probabilities, right), honest


def cross_fitted(probabilities: Sequence[float], right: Sequence[bool]) -> list[float]:
    """Return each reading's confidence by a calibration fitted on the other half.

    The halves are the even and the odd indices, so that the error is honest.
    """
    halves = [Calibration.fitted(probabilities[start::2], right[start::2]) for start in (0, 1)]
    return [
        halves[1 - index % 2](math.log(max(_LEAST, p))) for index, p in enumerate(probabilities)
    ]


def _logit(probability: float) -> float:
    inside = min(1 - _LEAST, max(_LEAST, probability))
    return math.log(inside / (1 - inside))
