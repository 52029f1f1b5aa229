"""Maximum mean discrepancy with a Gaussian kernel of fixed width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gyri.evaluation.distances import squared_distances
from gyri.evaluation.metrics import Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.evaluation.metrics.kernel import kernel_score, plain_distance
from gyri.registry import METRICS


def rbf_kernel(squared: FloatArray, sigma_squared: float) -> FloatArray:
    """Return ``k(x, y) = exp(-|x - y|^2 / (2 sigma^2))`` of squared distances."""
    return np.asarray(np.exp(squared / (-2.0 * sigma_squared)))


def median_width(hold: FloatArray, train: FloatArray) -> float:
    """Return sigma^2, the median squared distance of HOLD (n, d) and TRAIN (m, d) rows.

    It depends on real subjects alone, so that every model is measured by one kernel.

    Raises
    ------
    Refusal
        If more than half of the pairs are equal.
    """
    width = float(np.median(squared_distances(hold, train)))
    if not width > 0:
        raise Refusal(
            "the median distance of HOLD and TRAIN is 0, which gives a kernel no width; the "
            "features hold too few different values."
        )
    return width


def rbf_distance(x: FloatArray, y: FloatArray, sigma_squared: float) -> float:
    """Return the unbiased squared maximum mean discrepancy, Gaussian kernel (Gretton 2012).

    Lower is better; 0 in expectation for equal distributions, where negative values are legal and
    must not be clipped; below 2 always. Characteristic: it sees every difference of distributions
    that is not much smaller than sigma.

    Parameters
    ----------
    x, y : (n, d) and (m, d) features, n and m at least 2.
    sigma_squared : squared width, the same for all sets that are compared; see `median_width`.
    """
    pooled = np.concatenate([x, y])
    return plain_distance(rbf_kernel(squared_distances(pooled, pooled), sigma_squared), len(x))


@METRICS.register("rbf")
class RbfDistance(Metric):
    """MMD with a Gaussian kernel on every feature set; the width is frozen by real subjects.

    Lower is better, 0 for equal distributions; negative values are legal. Secondary to the kernel
    distance: bounded, so that a few wild samples cannot carry it, and for the same reason it
    saturates far from real. sigma^2 is the median squared HOLD-TRAIN distance. Works from two
    samples; the interval resamples subjects of both sets, the p-value permutes them.
    """

    name = "rbf"
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "rbf/radiomics-v1": ("+noise",),
        "rbf/spectrum-v1": ("+blur", "+noise"),
        "rbf/sw-v1": ("+bias_field", "+rotation", "+repetition", "+mode_dropping"),
    }
    blind_to = "what the feature set is blind to, and degrees of far: the kernel saturates"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the distance for every feature set."""
        return [self._score(features, generated, study) for features in generated.features]

    def _score(self, features: str, generated: Evidence, study: Study) -> Score:
        x, y = study.hold.features[features], generated.features[features]
        if not x.shape[1]:
            raise Refusal(f"{features}: every feature is constant on TRAIN, nothing to compare.")
        width = study.once(
            f"rbf/{features}", lambda: median_width(x, study.train.features[features])
        )
        pooled = np.concatenate([x, y])
        return kernel_score(
            rbf_kernel(squared_distances(pooled, pooled), width),
            generated,
            study,
            metric="rbf",
            features=features,
            definition="sigma2=median-hold-train",
            label="Gaussian kernel distance",
            note=f"sigma^2 = {width:.4g}; unbiased, negative values are legal",
        )
