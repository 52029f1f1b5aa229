"""Frechet distance between two sets of features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gyri.evaluation.bootstrap import centred_interval, draw_counts
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

MAX_DIMENSIONS = 64
RELIABLE_SAMPLES = 4
"""Samples a dimension in the smaller set below which the distance is unreliable."""
INFINITY_SIZES = 12
INFINITY_DRAWS = 3
INFINITY_RESAMPLES = 200
STEADY_SAMPLES = 12
"""Samples a dimension below which the extrapolation is noisy: its interval is wide."""


def frechet_distance(x: FloatArray, y: FloatArray) -> float:
    """Return the Frechet distance of Gaussians with the moments of two samples (Heusel 2017).

    ``|mx - my|^2 + Tr Cx + Tr Cy - 2 Tr (Cx Cy)^1/2``. With centred rows ``A = X / sqrt(n - 1)``
    and ``B = Y / sqrt(m - 1)`` the last trace is the nuclear norm of ``A B^T``: real, and exact
    where a covariance is singular, as with fewer samples than features.

    Lower is better, 0 is least. Biased upwards: compare at equal n only, and not below 4 samples
    a feature. Rewards copies of the training set.

    Parameters
    ----------
    x, y : (n, d) and (m, d) features, n and m at least 2.
    """
    n, m = len(x), len(y)
    mean = x.mean(0) - y.mean(0)
    a = (x - x.mean(0)) / np.sqrt(n - 1)
    b = (y - y.mean(0)) / np.sqrt(m - 1)
    return float(mean @ mean + (a * a).sum() + (b * b).sum() - 2 * nuclear_trace(a, b))


def nuclear_trace(a: FloatArray, b: FloatArray) -> float:
    """Return Tr (A'A B'B)^1/2 as the sum of the singular values of ``A B^T``.

    Of more rows than columns only the triangular factor R of ``A = Q R`` counts, for Q is
    orthonormal.
    """
    a, b = (np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x for x in (a, b))
    return float(np.linalg.svd(a @ b.T, compute_uv=False).sum())


def eigen_trace(cov_x: FloatArray, cov_y: FloatArray) -> FloatArray:
    """Return Tr (Cx Cy)^1/2 of (..., d, d) covariances from the eigenvalues of Cx^1/2 Cy Cx^1/2."""
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(np.clip(values, 0, None))[..., None, :]) @ np.swapaxes(
        vectors, -1, -2
    )
    inner = np.linalg.eigvalsh(root @ cov_y @ root)
    return np.asarray(np.sqrt(np.clip(inner, 0, None)).sum(-1))


def _moments(x: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return means (R, d) and covariances (R, d, d) of x (n, d), rows drawn `counts` (R, n)."""
    total = counts.sum(1)
    mean = counts @ x / total[:, None]
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    second = (counts @ products).reshape(len(counts), x.shape[1], x.shape[1]) / total[:, None, None]
    cov = second - mean[:, :, None] * mean[:, None, :]
    return mean, cov * (total / (total - 1))[:, None, None]


def resampled_distances(
    x: FloatArray, y: FloatArray, counts_x: FloatArray, counts_y: FloatArray
) -> FloatArray:
    """Return (R,) Frechet distances of resamples of x (n, d) and y (m, d)."""
    mean_x, cov_x = _moments(x, counts_x)
    mean_y, cov_y = _moments(y, counts_y)
    trace = np.trace(cov_x + cov_y, axis1=-2, axis2=-1)
    return np.asarray(((mean_x - mean_y) ** 2).sum(-1) + trace - 2 * eigen_trace(cov_x, cov_y))


def subset_counts(n: int, k: int, draws: int, rng: np.random.Generator) -> FloatArray:
    """Return (draws, n): ones at k of n rows, drawn without replacement."""
    counts = np.zeros((draws, n))
    chosen = rng.random((draws, n)).argsort(1)[:, :k]
    np.put_along_axis(counts, chosen, 1.0, axis=1)
    return counts


def frechet_infinity(
    x: FloatArray,
    y: FloatArray,
    rng: np.random.Generator,
    weights_x: FloatArray | None = None,
    weights_y: FloatArray | None = None,
) -> float:
    """Return the distance extrapolated to infinitely many samples (Chong & Forsyth 2020).

    Both sets are cut to equal k at 12 sizes, 3 draws each, and the distance is fitted linearly
    in 1/k; cutting only one set leaves half of the bias. Needs ``k >= 4 d`` at every size: NaN
    where the smaller set has fewer than ``4 d + 2`` samples. May be negative near 0.

    Parameters
    ----------
    weights_x, weights_y : how often each row was drawn, for resamples.
    """
    x = x if weights_x is None else np.repeat(x, weights_x.astype(int), axis=0)
    y = y if weights_y is None else np.repeat(y, weights_y.astype(int), axis=0)
    largest = min(len(x), len(y))
    smallest = max(RELIABLE_SAMPLES * x.shape[1], largest // 2)
    if largest - smallest < 2:
        return NAN
    sizes = np.unique(np.rint(1 / np.linspace(1 / smallest, 1 / largest, INFINITY_SIZES)))
    counts_x = [subset_counts(len(x), int(k), INFINITY_DRAWS, rng) for k in sizes]
    counts_y = [subset_counts(len(y), int(k), INFINITY_DRAWS, rng) for k in sizes]
    distances = resampled_distances(x, y, np.concatenate(counts_x), np.concatenate(counts_y))
    inverse = np.repeat(1 / sizes, INFINITY_DRAWS)
    return float(np.polyfit(inverse, distances, 1)[1])


def principal_axes(train: FloatArray, p: int) -> FloatArray:
    """Return (d, p) directions of largest variance of (n, d) features."""
    _, _, axes = np.linalg.svd(train - train.mean(0), full_matrices=False)
    return np.asarray(axes[:p].T)


def num_dimensions(num_train: int, available: int) -> int:
    """Return p = min(64, n_TRAIN / 10), at least 1 and no more than there are features."""
    return max(1, min(MAX_DIMENSIONS, available, num_train // 10))


def train_axes(features: str, study: Study) -> FloatArray:
    """Return (d, p) axes on which distances of a feature set are measured, fitted once.

    Raises
    ------
    Refusal
        If every feature is constant on TRAIN.
    """
    train = study.train.features[features]
    if not train.shape[1]:
        raise Refusal(f"{features}: every feature is constant on TRAIN, nothing to compare.")
    p = num_dimensions(len(train), train.shape[1])
    return np.asarray(study.once(f"fd/{features}", lambda: principal_axes(train, p)))


def effective_dimensions(x: FloatArray) -> float:
    """Return (Tr C)^2 / Tr C^2 of a sample's covariance C."""
    cov = np.atleast_2d(np.cov(x, rowvar=False))
    return float(np.trace(cov) ** 2 / max((cov**2).sum(), 1e-300))


@METRICS.register("fd")
class FrechetDistance(Metric):
    """Frechet distance on the first p principal axes of TRAIN, and its limit for many samples.

    Lower is better, from 0. Features are z-scored by TRAIN and projected on
    p = min(64, n_TRAIN/10) axes. Blind to differences outside these axes and beyond second moments;
    rewards copies. Below 4 p samples in the smaller set it is marked unreliable: read the kernel
    distance. Compare at equal n only. The interval resamples subjects of both sets and is centred
    on the value (see `gyri.evaluation.bootstrap.centred_interval`).
    """

    name = "fd"
    sees: ClassVar = {
        "fd/morph-v1": ("+noise", "+clipping"),
        "fd/radiomics-v1": ("+blur", "+noise", "+clipping"),
        "fd/spectrum-v1": ("+blur", "+noise"),
    }
    blind_to = (
        "what lies outside the first axes of TRAIN: dropped modes are noticed late, when few "
        "subjects are left, and not monotonically; copies of TRAIN look perfect"
    )
    min_generated = 4

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the distance and its extrapolation for every feature set."""
        return [s for f in generated.features for s in self._scores(f, generated, study)]

    def _scores(self, features: str, generated: Evidence, study: Study) -> list[Score]:
        axes = train_axes(features, study)
        p: int = axes.shape[1]
        x, y = study.hold.features[features] @ axes, generated.features[features] @ axes
        n = f"n={len(x)}/{len(y)}"
        definition = f"{features},zscore-train,p={p}"
        smaller = min(len(x), len(y))
        value = frechet_distance(x, y)
        low, high = self._interval(x, y, value, generated, study)
        shared = {
            "metric": "fd",
            "features": features,
            "n_real": len(x),
            "n_generated": len(y),
            "better": "lower",
            "reliable": smaller >= RELIABLE_SAMPLES * p,
        }
        doubt = f"; fewer than {RELIABLE_SAMPLES * p} samples: read the kernel distance"
        raw = Score(
            key=f"fd/{features}",
            name=f"fd[{definition},{n}]",
            label=f"Fréchet distance, {features}",
            value=value,
            low=low,
            high=high,
            note=f"on {p} principal axes of TRAIN; effective dimensions "
            f"{effective_dimensions(y):.1f}, of HOLD {effective_dimensions(x):.1f}"
            + ("" if shared["reliable"] else doubt),
            **shared,  # type: ignore[arg-type]
        )
        limit = frechet_infinity(x, y, study.rng("fd", features))
        if not np.isfinite(limit):
            return [raw]
        low, high = self._limit_interval(x, y, limit, generated, study)
        return [
            raw,
            Score(
                key=f"fd_infinity/{features}",
                name=f"fd_infinity[{definition},{n}]",
                label=f"Fréchet distance without sample bias, {features}",
                value=limit,
                low=low,
                high=high,
                target=0.0,
                note="extrapolated to infinitely many samples; may be negative near 0"
                + ("" if smaller >= STEADY_SAMPLES * p else "; few samples: read its interval"),
                **shared,  # type: ignore[arg-type]
            ),
        ]

    def _counts(
        self, generated: Evidence, study: Study, resamples: int
    ) -> tuple[FloatArray, FloatArray]:
        rng = study.rng("fd", "bootstrap")
        return (
            draw_counts(study.hold.volumes.ids, resamples, rng),
            draw_counts(generated.volumes.ids, resamples, rng),
        )

    def _interval(
        self, x: FloatArray, y: FloatArray, value: float, generated: Evidence, study: Study
    ) -> tuple[float, float]:
        if not study.resamples:
            return NAN, NAN
        counts_x, counts_y = self._counts(generated, study, study.resamples)
        low, high = centred_interval(value, resampled_distances(x, y, counts_x, counts_y))
        return max(0.0, low), high

    def _limit_interval(
        self, x: FloatArray, y: FloatArray, value: float, generated: Evidence, study: Study
    ) -> tuple[float, float]:
        if not study.resamples:
            return NAN, NAN
        counts = self._counts(generated, study, min(study.resamples, INFINITY_RESAMPLES))
        rng = study.rng("fd", "infinity")
        replicates = [frechet_infinity(x, y, rng, a, b) for a, b in zip(*counts)]
        return centred_interval(value, np.array(replicates))
