"""Measures of a model's answers, written so that resampling subjects is a change of weights.

Every function takes answers, targets and weights (R, N), how often each subject was drawn in each
of R resamples, and returns (R,). A resample in which a measure is undefined (one class alone)
gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.utility.tasks import Task

FloatArray = NDArray[np.float64]
Answers = Mapping[str, FloatArray]
"""What a model says of N cases: ``probability`` (N, K), ``prediction`` (N,), or per structure
``dice``, ``hd95_mm`` and ``volume_error_ml`` (N, S)."""
ECE_BINS = 10


@dataclass(frozen=True)
class Measure:
    """One measure of answers.

    Parameters
    ----------
    name, label, unit : for tables and for people.
    better : which direction is good.
    minimum : smallest difference that matters, fixed before the study; 0 where none is.
    weighted : (answers, target, weights (R, N)) -> (R,).
    """

    name: str
    label: str
    better: Literal["higher", "lower"]
    weighted: Callable[[Answers, NDArray[np.generic], FloatArray], FloatArray]
    unit: str = ""
    minimum: float = 0.0

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1: a difference times this is a gain."""
        return 1.0 if self.better == "higher" else -1.0


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def auroc(answers: Answers, target: NDArray[np.generic], weights: FloatArray) -> FloatArray:
    """Area under the ROC curve, ties half; one against the rest, averaged, for several classes.

    Chance is 0.5, best 1. Needs a subject of each class.
    """
    probability = answers["probability"]
    classes = [1] if probability.shape[1] == 2 else range(probability.shape[1])
    return np.mean([_auroc(probability[:, k], target == k, weights) for k in classes], axis=0)


def _auroc(score: FloatArray, positive: NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    gap = score[positive][:, None] - score[~positive]
    wins = (gap > 0) + 0.5 * (gap == 0)
    with_positive, with_negative = weights[:, positive], weights[:, ~positive]
    won = ((with_positive @ wins) * with_negative).sum(1)
    return _ratio(won, with_positive.sum(1) * with_negative.sum(1))


def balanced_accuracy(
    answers: Answers, target: NDArray[np.generic], weights: FloatArray
) -> FloatArray:
    """Mean share of each class that is called by its name; chance is 1 / classes, best 1."""
    probability = answers["probability"]
    right = (probability.argmax(1) == target).astype(float)
    shares = [
        _ratio(weights[:, target == k] @ right[target == k], weights[:, target == k].sum(1))
        for k in range(probability.shape[1])
    ]
    return np.mean(shares, axis=0)


def brier(answers: Answers, target: NDArray[np.generic], weights: FloatArray) -> FloatArray:
    """Half the mean squared distance of the probabilities from the truth (Brier 1950).

    For two classes the mean of (p - y)^2. 0 is best; always saying 0.5 gives 0.25.
    """
    probability = answers["probability"]
    truth = target[:, None] == np.arange(probability.shape[1])
    return _ratio(weights @ ((probability - truth) ** 2).sum(1) / 2, weights.sum(1))


def calibration_error(
    answers: Answers, target: NDArray[np.generic], weights: FloatArray
) -> FloatArray:
    """Expected calibration error: |confidence - accuracy| averaged over `ECE_BINS` equal bins.

    0 is best. Biased upwards at few subjects (Naeini 2015, AAAI; Kumar 2019, arXiv:1909.10155).
    """
    probability = answers["probability"]
    confidence = probability.max(1)
    excess = confidence - (probability.argmax(1) == target)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    members = bins[:, None] == np.arange(ECE_BINS)
    return _ratio(np.abs(weights @ (excess[:, None] * members)).sum(1), weights.sum(1))


def absolute_error(
    answers: Answers, target: NDArray[np.generic], weights: FloatArray
) -> FloatArray:
    """Mean absolute error, in the target's unit; 0 is best."""
    gap = np.abs(answers["prediction"] - target.astype(float))
    return _ratio(weights @ gap, weights.sum(1))


def _of_structures(name: str, structures: slice | list[int]) -> Callable[..., FloatArray]:
    """Mean over structures of a subject, then over subjects; what is NaN is left out."""

    def weighted(answers: Answers, target: NDArray[np.generic], weights: FloatArray) -> FloatArray:
        values = answers[name][:, structures]
        known = np.isfinite(values)
        count = known.sum(1)
        means = np.where(known, values, 0).sum(1) / np.maximum(count, 1)
        counted = weights * (count > 0)
        return _ratio(counted @ means, counted.sum(1))

    return weighted


def measures(task: Task) -> list[Measure]:
    """Return the measures of a task; the first one decides."""
    if task.kind == "classification":
        return [
            Measure("auroc", "AUROC", "higher", auroc, minimum=0.01),
            Measure("balanced_accuracy", "balanced accuracy", "higher", balanced_accuracy),
            Measure("brier", "Brier score", "lower", brier),
            Measure("ece", "calibration error", "lower", calibration_error),
        ]
    if task.kind == "regression":
        label = "mean absolute error"
        minimum = 0.1 if task.source == "age" else 0.0
        return [Measure("mae", label, "lower", absolute_error, task.unit, minimum)]
    everything = slice(None)
    found = [
        Measure("dice", "Dice", "higher", _of_structures("dice", everything), minimum=0.01),
        Measure("hd95_mm", "HD95", "lower", _of_structures("hd95_mm", everything), "mm"),
        Measure(
            "volume_error_ml",
            "volume error",
            "lower",
            _of_structures("volume_error_ml", everything),
            "ml",
        ),
    ]
    for place, name in enumerate(task.levels):
        for base in ("dice", "hd95_mm", "volume_error_ml"):
            first = next(m for m in found if m.name == base)
            found.append(
                Measure(
                    f"{base}/{name}",
                    f"{first.label}, {name}",
                    first.better,
                    _of_structures(base, [place]),
                    first.unit,
                )
            )
    return found
