"""How far two samples of one quantity are apart: effect size, distribution, distance.

Pure functions of (n,) and (m,) values, and `compare`, which applies them to every feature of
``morph-v1`` at once, with intervals and Holm's correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.evaluation.bootstrap import LEVEL, bca_interval, draw_counts
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Study

CONSTANT = 1e-9
"""A feature whose spread on TRAIN is below this share of its size is constant there."""


@dataclass(frozen=True)
class Effect:
    """One feature of the generated set against HOLD.

    Parameters
    ----------
    real, made : values of HOLD and of the generated set.
    d, low, high : Cohen's d with its 95 % interval.
    ks, p_value : Kolmogorov-Smirnov gap; p-value after Holm's correction over all features.
    w1 : Wasserstein-1 distance in the feature's unit.
    """

    real: FloatArray
    made: FloatArray
    d: float
    low: float
    high: float
    ks: float
    p_value: float
    w1: float


def cohens_d(real: FloatArray, generated: FloatArray) -> float:
    """Return the difference of means, generated minus real, in pooled standard deviations.

    0 is best; below 0.2 in size is called small. NaN where neither set varies. Needs n >= 2.
    """
    n, m = len(real), len(generated)
    pooled = ((n - 1) * real.var(ddof=1) + (m - 1) * generated.var(ddof=1)) / (n + m - 2)
    gap = generated.mean() - real.mean()
    return float(gap / np.sqrt(pooled)) if pooled > 0 else (0.0 if gap == 0 else NAN)


def wasserstein(real: FloatArray, generated: FloatArray) -> float:
    """Return the Wasserstein-1 distance of two samples in their unit; lower is better, from 0."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(real, generated))


def kolmogorov_smirnov(real: FloatArray, generated: FloatArray) -> tuple[float, float]:
    """Return the largest gap of the distribution functions (0 best, 1 worst) and its p-value."""
    from scipy.stats import ks_2samp

    result = ks_2samp(real, generated)
    return float(result.statistic), float(result.pvalue)


def holm(p_values: FloatArray) -> FloatArray:
    """Return (k,) p-values adjusted for k tests (Holm 1979); none becomes smaller."""
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def weighted_d(
    real: FloatArray, generated: FloatArray, counts_x: FloatArray, counts_y: FloatArray
) -> FloatArray:
    """Return Cohen's d of (R,) resamples given as counts (R, n) and (R, m)."""

    def moments(x: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        total = counts.sum(1)
        mean = counts @ x / total
        return mean, counts @ x**2 - total * mean**2, total

    mean_x, spread_x, n = moments(real, counts_x)
    mean_y, spread_y, m = moments(generated, counts_y)
    pooled = (spread_x + spread_y) / (n + m - 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(pooled > 0, (mean_y - mean_x) / np.sqrt(pooled), np.nan))


def _leave_one_out(real: FloatArray, generated: FloatArray) -> FloatArray:
    """Cohen's d with each row of either set left out."""
    n, m = len(real), len(generated)
    return np.concatenate(
        [
            weighted_d(real, generated, 1.0 - np.eye(n), np.ones((n, m))),
            weighted_d(real, generated, np.ones((m, n)), 1.0 - np.eye(m)),
        ]
    )


def normal_interval(d: float, n: int, m: int) -> tuple[float, float]:
    """Return the large-sample interval of Cohen's d (Hedges and Olkin 1985, chapter 5)."""
    from scipy.stats import norm

    half = float(norm.ppf((1 + LEVEL) / 2)) * np.sqrt((n + m) / (n * m) + d**2 / (2 * (n + m)))
    return d - float(half), d + float(half)


def varying(study: Study) -> list[str]:
    """Return the features of ``morph-v1`` that TRAIN does not hold constant."""
    return [
        name
        for name, values in study.train.morph.items()
        if values.std() > CONSTANT * max(float(np.abs(values).mean()), CONSTANT)
    ]


def compare(generated: Evidence, study: Study) -> dict[str, Effect]:
    """Return the effect for every feature of ``morph-v1`` that varies on TRAIN.

    Intervals resample subjects of both sets (BCa); a study without resamples, in which anchors
    are judged, has the large-sample ones. Needs n >= 3 on both sides.
    """
    names = varying(study)
    pairs = [(study.hold.morph[name], generated.morph[name]) for name in names]
    tests = [kolmogorov_smirnov(*pair) for pair in pairs]
    adjusted = holm(np.array([p for _, p in tests]))
    rng = study.rng("effects")
    counts = [
        draw_counts(evidence.volumes.ids, study.resamples, rng)
        for evidence in (study.hold, generated)
        if study.resamples
    ]
    effects = {}
    for name, (real, made), (ks, _), p_value in zip(names, pairs, tests, adjusted):
        d = cohens_d(real, made)
        low, high = normal_interval(d, len(real), len(made))
        if counts and np.isfinite(d):
            replicates = weighted_d(real, made, *counts)
            low, high = bca_interval(d, replicates, _leave_one_out(real, made))
        w1 = wasserstein(real, made)
        effects[name] = Effect(real, made, d, low, high, ks, float(p_value), w1)
    return effects
