"""Sliced Wasserstein distance of coarse images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import centred_interval, draw_counts
from gyri.evaluation.features.sliced import NUM_DIRECTIONS
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

FEATURE_SET = "sw-v1"
Rows = NDArray[np.int64]
RESAMPLES = 200
"""Of subjects; every one sorts all projections again."""


def _matched(n: int, m: int) -> tuple[Rows, Rows, FloatArray]:
    """Return ranks in both samples and the mass of every piece of the optimal plan in 1D."""
    # In units of 1 / (n m): both quantile functions are constant between these edges.
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    start = edges[:-1]
    return start // m, start // n, np.diff(edges) / (n * m)


def sliced_wasserstein(x: FloatArray, y: FloatArray) -> float:
    """Return the mean over directions of the squared 2-Wasserstein distance (Bonneel 2015).

    Lower is better, from 0. In one dimension the optimal plan is between sorted values; sets of
    different sizes are matched by quantiles. A shift by v costs ``|v|^2 / d`` over full
    orthonormal blocks of d directions. Biased upwards at small n: compare at equal n.

    Parameters
    ----------
    x, y : (n, K) and (m, K) projections on the same K directions.
    """
    rank_x, rank_y, mass = _matched(len(x), len(y))
    gap = np.sort(x, 0)[rank_x] - np.sort(y, 0)[rank_y]
    return float((mass @ (gap * gap)).mean())


@METRICS.register("sliced_wasserstein")
class SlicedWasserstein(Metric):
    """Squared sliced 2-Wasserstein distance on the projections of ``sw-v1``, in intensities.

    Lower is better, from 0; biased upwards at small n, so read it beside the ceiling. Nothing is
    z-scored: the unit is intensity squared per cell of the coarse brain. Sees layout, contrast
    and collapse; blind to detail below a cell. The interval resamples subjects of both sets and
    is centred on the value.
    """

    name = "sliced_wasserstein"
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sliced_wasserstein": ("+bias_field", "+rotation", "+repetition", "+mode_dropping"),
    }
    blind_to = "texture, noise and blur below a cell of the 32^3 grid"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the distance."""
        if FEATURE_SET not in generated.raw:
            raise Refusal(f"{FEATURE_SET} was not measured; name it among the feature sets.")
        x, y = study.hold.raw[FEATURE_SET], generated.raw[FEATURE_SET]
        value = sliced_wasserstein(x, y)
        low, high = self._interval(x, y, value, generated, study)
        return [
            Score(
                key="sliced_wasserstein",
                name=f"sw2[{FEATURE_SET},K={NUM_DIRECTIONS},n={len(x)}/{len(y)}]",
                metric="sliced_wasserstein",
                features=FEATURE_SET,
                label="sliced Wasserstein distance of coarse images",
                value=value,
                low=low,
                high=high,
                n_real=len(x),
                n_generated=len(y),
                unit="intensity²",
                note="mean squared distance a cell of the coarse brain; biased upwards at small n",
            )
        ]

    def _interval(
        self, x: FloatArray, y: FloatArray, value: float, generated: Evidence, study: Study
    ) -> tuple[float, float]:
        if not study.resamples:
            return NAN, NAN
        rng = study.rng("sliced_wasserstein")
        draws = min(study.resamples, RESAMPLES)
        replicates = [
            sliced_wasserstein(x[_redrawn(study.hold, rng)], y[_redrawn(generated, rng)])
            for _ in range(draws)
        ]
        low, high = centred_interval(value, np.array(replicates))
        return max(0.0, low), high


def _redrawn(evidence: Evidence, rng: np.random.Generator) -> Rows:
    counts = draw_counts(evidence.volumes.ids, 1, rng)[0].astype(int)
    return np.repeat(np.arange(len(counts)), counts)
