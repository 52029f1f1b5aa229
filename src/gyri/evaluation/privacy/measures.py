"""Measures of copying on distances between samples, members and non-members.

All are functions of one `Sides`. Lower distances of samples to TRAIN than to HOLD are copying;
lower distances to both are smoothness, or lack of diversity, and no measure here may take the one
for the other: each is read against the same measure with membership permuted
(`gyri.evaluation.privacy.audit`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features import FloatArray

COPY_PERCENTILE = 5.0
MIN_CELL = 20
FLD_STEPS = 6


@dataclass(frozen=True)
class Sides:
    """Distances in one space.

    Parameters
    ----------
    to_train, to_hold : (N, T) and (N, H), of samples to members and to non-members.
    train : (T, T), infinite on the diagonal.
    hold_to_train : (H, T).
    cells, hold_cells : (N,) and (H,) cells of the space, see `data_copying`.
    dimensions : of the space where it is Euclidean, else 0.
    """

    to_train: FloatArray
    to_hold: FloatArray
    train: FloatArray
    hold_to_train: FloatArray
    cells: NDArray[np.int64]
    hold_cells: NDArray[np.int64]
    dimensions: int = 0


def closer_share(sides: Sides) -> float:
    """Return how often a sample's nearest person is a member, per member against per non-member.

    0.5 without memorisation, 1 for copies, whatever the sizes of TRAIN and HOLD; with equal sizes
    the share of samples that are nearer to TRAIN than to HOLD. Needs one sample.
    """
    gap = sides.to_hold.min(1) - sides.to_train.min(1)
    share = float((gap > 0).mean() + (gap == 0).mean() / 2)
    member = share / sides.to_train.shape[1]
    other = (1 - share) / sides.to_hold.shape[1]
    return member / (member + other)


def copy_threshold(hold_to_train: FloatArray) -> float:
    """Return the distance to TRAIN below which 5 % of unseen people lie.

    Weibull's plotting positions: another unseen person lies below with probability 5 % whatever
    H, from 20 on.
    """
    return float(np.percentile(hold_to_train.min(1), COPY_PERCENTILE, method="weibull"))


def copy_rate(sides: Sides) -> float:
    """Return the share of samples nearer to a member than 95 % of unseen people: 0.05 expected."""
    return float((sides.to_train.min(1) < copy_threshold(sides.hold_to_train)).mean())


def authentic(to_train: FloatArray, train: FloatArray) -> NDArray[np.bool_]:
    """Say which samples are farther from their nearest member than that member from its nearest.

    Alaa et al. 2022, "How faithful is your synthetic data?", section 5. The index of the nearest
    is one of a *member*; the number of samples is free. The share of an unseen set is not 0.5: it
    grows with the dimension, so that HOLD's own share is the reference.

    Parameters
    ----------
    to_train : (N, T).
    train : (T, T), infinite on the diagonal.
    """
    nearest = to_train.argmin(1)
    return np.asarray(to_train[np.arange(len(to_train)), nearest] > train.min(1)[nearest])


def authenticity(sides: Sides) -> float:
    """Return the share of authentic samples; 0 for copies."""
    return float(authentic(sides.to_train, sides.train).mean())


def hold_authenticity(sides: Sides) -> float:
    """Return the share of authentic people in HOLD, what unseen samples reach."""
    return float(authentic(sides.hold_to_train, sides.train).mean())


def distance_ratio(to_train: FloatArray) -> FloatArray:
    """Return (N,) distances to the nearest member over those to the second nearest (NNDR).

    In [0, 1]; small where one member stands out. The level of unseen people depends on the
    dimension. Needs two members.
    """
    two = np.partition(to_train, 1, axis=1)
    return np.asarray(two[:, 0] / np.maximum(two[:, 1], 1e-12))


def data_copying(sides: Sides) -> float:
    """Return ``C_T`` of Meehan et al. 2020: below -3 samples lie nearer to TRAIN than HOLD does.

    In every cell with at least 20 samples and 20 people of HOLD, the z-score of the Mann-Whitney
    statistic of their distances to TRAIN; averaged with HOLD's weights. The whole space is one
    cell where no cell has that many. 0 expected.
    """
    nearest, reference = sides.to_train.min(1), sides.hold_to_train.min(1)
    total, weight = 0.0, 0
    for cell in np.unique(sides.hold_cells):
        ours, theirs = nearest[sides.cells == cell], reference[sides.hold_cells == cell]
        if min(len(ours), len(theirs)) >= MIN_CELL:
            total += len(theirs) * mann_whitney_z(ours, theirs)
            weight += len(theirs)
    return total / weight if weight else mann_whitney_z(nearest, reference)


def mann_whitney_z(ours: FloatArray, theirs: FloatArray) -> float:
    """Return the z-score of the number of pairs with ``ours > theirs``, ties a half."""
    n, m = len(ours), len(theirs)
    ordered = np.sort(theirs)
    below = np.searchsorted(ordered, ours, side="left")
    upto = np.searchsorted(ordered, ours, side="right")
    u = float((below + upto).sum()) / 2
    return (u - n * m / 2) / float(np.sqrt(n * m * (n + m + 1) / 12))


def likelihood_gap(sides: Sides) -> float:
    """Return 100 / d times TRAIN's minus HOLD's negative log-likelihood under the samples.

    Jiralerspong et al. 2023, "Feature likelihood divergence": a mixture of isotropic Gaussians, one
    at every sample, whose bandwidths fit TRAIN (here by expectation-maximisation). Negative where
    samples explain TRAIN better than HOLD; the bandwidths' fit alone makes it so, so that only
    the value with membership permuted is a reference. Euclidean spaces only.
    """
    d = sides.dimensions
    train2, hold2 = sides.to_train**2, sides.to_hold**2
    floor = 1e-6 * float(np.median(train2)) / d
    variance = np.maximum(train2.min(1) / d, floor)
    for _ in range(FLD_STEPS):
        log_density = _log_density(train2, variance, d)
        log_density -= log_density.max(0)
        responsible = np.exp(log_density)
        responsible /= responsible.sum(0)
        mass = np.maximum(responsible.sum(1), 1e-12)
        variance = np.maximum((responsible * train2).sum(1) / (d * mass), floor)
    likelihood = [np.logaddexp.reduce(_log_density(x, variance, d), 0) for x in (train2, hold2)]
    return float(100 / d * (likelihood[1].mean() - likelihood[0].mean()))


def _log_density(squared: FloatArray, variance: FloatArray, d: int) -> FloatArray:
    return -squared / (2 * variance[:, None]) - d / 2 * np.log(variance)[:, None]


def _lack_of_authenticity(sides: Sides) -> float:
    return hold_authenticity(sides) - authenticity(sides)


def _lack_of_ratio(sides: Sides) -> float:
    ours, theirs = distance_ratio(sides.to_train), distance_ratio(sides.hold_to_train)
    return float(theirs.mean() - ours.mean())


STATISTICS: dict[str, Callable[[Sides], float]] = {
    "closer": closer_share,
    "copy_rate": copy_rate,
    "authenticity": _lack_of_authenticity,
    "data_copying": lambda sides: -data_copying(sides),
    "distance_ratio": _lack_of_ratio,
    "likelihood_gap": lambda sides: -likelihood_gap(sides),
}
"""What membership is permuted for; larger means more copying."""


def statistics(sides: Sides) -> dict[str, float]:
    """Return all statistics that the space allows."""
    return {
        name: statistic(sides)
        for name, statistic in STATISTICS.items()
        if sides.dimensions or name != "likelihood_gap"
    }
