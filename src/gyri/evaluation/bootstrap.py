"""Intervals by resampling subjects.

Every function works on counts: how often each row was drawn in each resample. Rows of one subject
are always drawn together, and a metric becomes a weighted sum, which vectorises.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

LEVEL = 0.95


def draw_counts(ids: Sequence[str], resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return (resamples, N): how often each row is drawn when subjects are drawn with replacement.

    Parameters
    ----------
    ids : N subject ids; rows with the same id are drawn together.
    """
    _, subject = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    num_subjects = int(subject.max()) + 1
    uniform = np.full(num_subjects, 1 / num_subjects)
    return rng.multinomial(num_subjects, uniform, size=resamples)[:, subject].astype(np.float64)


def percentile_interval(replicates: FloatArray) -> tuple[float, float]:
    """Return the central 95 % of the finite replicates."""
    finite = replicates[np.isfinite(replicates)]
    if not finite.size:
        return float("nan"), float("nan")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)


def centred_interval(value: float, replicates: FloatArray) -> tuple[float, float]:
    """Return the percentile interval moved so that its median lies on `value`.

    A plug-in distance is biased upwards at finite n, and its replicates carry that bias a second
    time; the shift removes the second one. What is left is the spread at this sample size.
    """
    low, high = percentile_interval(replicates)
    shift = float(np.nanmedian(replicates)) - value
    return low - shift, high - shift


def bca_interval(
    value: float, replicates: FloatArray, jackknife: FloatArray
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated interval (Efron 1987).

    Parameters
    ----------
    value : the estimate.
    replicates : (resamples,) bootstrap estimates.
    jackknife : (subjects,) estimates with one subject left out.
    """
    from scipy.stats import norm

    replicates = replicates[np.isfinite(replicates)]
    if not replicates.size or np.ptp(replicates) == 0:
        return value, value
    below = (replicates < value).mean() + (replicates == value).mean() / 2
    edge = 0.5 / replicates.size
    z0 = norm.ppf(np.clip(below, edge, 1 - edge))
    influence = jackknife.mean() - jackknife
    norm2 = (influence**2).sum()
    acceleration = (influence**3).sum() / (6 * norm2**1.5) if norm2 > 0 else 0.0
    z = norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tails = norm.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
    low, high = np.quantile(replicates, tails)
    return float(low), float(high)


def mean_interval(
    values: FloatArray, ids: Sequence[str], resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the BCa interval of the mean of (N,) values, subjects resampled."""
    if not resamples or len(values) < 2:
        return float("nan"), float("nan")
    counts = draw_counts(ids, resamples, rng)
    replicates = counts @ values / counts.sum(1)
    _, subject = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    sums, sizes = np.bincount(subject, values), np.bincount(subject)
    left = len(values) - sizes
    if (left == 0).any():
        return float("nan"), float("nan")
    jackknife = (values.sum() - sums) / left
    return bca_interval(float(values.mean()), replicates, jackknife)


def share_interval(successes: float, n: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share; effective numbers need not be whole.

    Resampling a share of 1 gives [1, 1] at any n; Wilson's interval does not claim that.
    """
    if n == 0:
        return float("nan"), float("nan")
    from scipy.stats import norm

    z = float(norm.ppf((1 + LEVEL) / 2))
    p = successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))
