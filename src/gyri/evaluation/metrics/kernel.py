"""Kernel distance between two sets of features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gyri.evaluation.bootstrap import centred_interval, draw_counts
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

PERMUTATIONS = 1000


def cubic_kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return ``k(x, y) = (x . y / d + 1)^3`` of (n, d) and (m, d) features."""
    base = np.matmul(x, y.T)
    base /= x.shape[1]
    base += 1.0
    return np.asarray(base * base * base)


def _off_diagonal_mean(kernel: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean of the kernel over pairs of different rows, each row weighted; weights (R, n)."""
    diagonal = np.diagonal(kernel)
    total = ((weights @ kernel) * weights).sum(1) - weights**2 @ diagonal
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    # A resample of few rows may hold one row alone, which pairs with nothing.
    return np.divide(total, pairs, out=np.full_like(total, NAN), where=pairs > 0)


def weighted_distances(
    kernel: FloatArray, num_x: int, weights_x: FloatArray, weights_y: FloatArray
) -> FloatArray:
    """Return (R,) unbiased squared distances from the pooled kernel (n + m, n + m).

    Parameters
    ----------
    num_x : the first `num_x` rows are x.
    weights_x, weights_y : (R, n) and (R, m), how often each row is drawn; a row is never paired
        with itself, however often it is drawn.
    """
    xx = _off_diagonal_mean(kernel[:num_x, :num_x], weights_x)
    yy = _off_diagonal_mean(kernel[num_x:, num_x:], weights_y)
    cross = ((weights_x @ kernel[:num_x, num_x:]) * weights_y).sum(1)
    return np.asarray(xx + yy - 2 * cross / (weights_x.sum(1) * weights_y.sum(1)))


def kernel_distance(x: FloatArray, y: FloatArray) -> float:
    """Return the unbiased squared maximum mean discrepancy, cubic kernel (Binkowski 2018).

    Lower is better; 0 in expectation for equal distributions, where negative values are as
    likely as positive ones and must not be clipped. Unbiased from n = 2. Sees the first three
    moments.

    Parameters
    ----------
    x, y : (n, d) and (m, d) features, n and m at least 2.
    """
    pooled = np.concatenate([x, y])
    return plain_distance(cubic_kernel(pooled, pooled), len(x))


def plain_distance(kernel: FloatArray, num_x: int) -> float:
    """Return the unbiased squared distance from the pooled kernel, every row once."""
    num_y = len(kernel) - num_x
    return float(weighted_distances(kernel, num_x, np.ones((1, num_x)), np.ones((1, num_y)))[0])


def permutation_p_value(
    kernel: FloatArray, num_x: int, permutations: int, rng: np.random.Generator
) -> float:
    """Return the share of relabellings with at least the observed distance (plus one rule)."""
    n = len(kernel)
    member = np.zeros((permutations + 1, n))
    member[0, :num_x] = 1.0
    chosen = rng.random((permutations, n)).argsort(1)[:, :num_x]
    np.put_along_axis(member[1:], chosen, 1.0, axis=1)
    other = 1.0 - member
    rows = member @ kernel
    cross = (rows * other).sum(1) / (num_x * (n - num_x))
    distances = _off_diagonal_mean(kernel, member) + _off_diagonal_mean(kernel, other) - 2 * cross
    return float((distances >= distances[0] - 1e-12).sum() / (permutations + 1))


def estimate(
    kernel: FloatArray, generated: Evidence, study: Study, *stream: str
) -> tuple[float, float, float, float | None]:
    """Return distance, interval and permutation p-value of `generated` against HOLD.

    Parameters
    ----------
    kernel : (n + m, n + m), HOLD first.
    stream : names of the random stream.
    """
    n = len(study.hold)
    value = plain_distance(kernel, n)
    if not study.resamples:
        return value, NAN, NAN, None
    rng = study.rng(*stream)
    counts_x = draw_counts(study.hold.volumes.ids, study.resamples, rng)
    counts_y = draw_counts(generated.volumes.ids, study.resamples, rng)
    replicates = weighted_distances(kernel, n, counts_x, counts_y)
    low, high = centred_interval(value, replicates)
    return value, low, high, permutation_p_value(kernel, n, PERMUTATIONS, rng)


def kernel_score(
    kernel: FloatArray,
    generated: Evidence,
    study: Study,
    *,
    metric: str,
    features: str,
    definition: str,
    label: str,
    note: str,
) -> Score:
    """Return a kernel distance, from the kernel of HOLD's rows and then those of `generated`."""
    value, low, high, p_value = estimate(kernel, generated, study, metric, features)
    n_real, n_generated = len(study.hold.features[features]), len(generated.features[features])
    return Score(
        key=f"{metric}/{features}",
        name=f"{metric}[{features},zscore-train,{definition},n={n_real}/{n_generated}]",
        metric=metric,
        features=features,
        label=f"{label}, {features}",
        value=value,
        low=low,
        high=high,
        n_real=n_real,
        n_generated=n_generated,
        target=0.0,
        note=note,
        p_value=p_value,
    )


@METRICS.register("kid")
class KernelDistance(Metric):
    """Kernel distance (cubic, unbiased) on z-scored features, with a permutation p-value.

    Lower is better, 0 for equal distributions; negative values are legal. All features, no
    projection. Works from two samples; the p-value tests that the sets are equal, which a good
    generator fails once n is large. The interval resamples subjects of both sets.
    """

    name = "kid"
    sees: ClassVar = {
        "kid/morph-v1": ("+blur", "+noise", "+rotation", "+repetition", "+clipping"),
        "kid/radiomics-v1": ("+blur", "+noise", "+bias_field", "+repetition", "+clipping"),
        "kid/spectrum-v1": ("+blur", "+noise", "+bias_field"),
        "kid/ssl-v1": ("+blur", "+repetition"),
    }
    blind_to = (
        "dropped modes, until few subjects are left: means hardly move; rotation on radiomics-v1, "
        "which does not know directions; copies of TRAIN look perfect"
    )

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the distance for every feature set."""
        return [self._score(features, generated, study) for features in generated.features]

    def _score(self, features: str, generated: Evidence, study: Study) -> Score:
        x, y = study.hold.features[features], generated.features[features]
        if not x.shape[1]:
            raise Refusal(f"{features}: every feature is constant on TRAIN, nothing to compare.")
        pooled = np.concatenate([x, y])
        return kernel_score(
            cubic_kernel(pooled, pooled),
            generated,
            study,
            metric="kid",
            features=features,
            definition="cubic",
            label="kernel distance",
            note="unbiased; negative values are legal",
        )
