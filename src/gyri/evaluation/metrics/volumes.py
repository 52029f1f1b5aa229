"""Brain and tissue volumes in millilitres."""

from __future__ import annotations

from typing import Any

import numpy as np

from gyri.evaluation.bootstrap import bca_interval, draw_counts, mean_interval, share_interval
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Score, Study
from gyri.registry import METRICS

TISSUES = {
    "brain_ml": "brain",
    "gm_ml": "grey matter",
    "wm_ml": "white matter",
    "csf_ml": "CSF",
    "central_csf_ml": "ventricles",
}
RANGE_PERCENTILES = (0.5, 99.5)


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


@METRICS.register("volumes")
class Volumes(Metric):
    """Means, effect sizes, KS and W1 of five tissue volumes; share of brains in TRAIN's range.

    Mean and d are best near HOLD's mean and 0; KS and W1 best at 0; the share best near HOLD's
    own. One segmenter with the same settings on both sides; a brain it cannot find counts as
    0 ml. Needs n >= 3; KS says little below 20. Blind to where the tissue is.
    """

    name = "volumes"
    family = "anatomy"
    same_grid = False
    min_generated = 3

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return four scores for each tissue and the share in range."""
        scores = [s for tissue in TISSUES for s in self._tissue(tissue, generated, study)]
        return [*scores, self._in_range(generated, study)]

    def _tissue(self, tissue: str, generated: Evidence, study: Study) -> list[Score]:
        real, made = study.hold.morph[tissue], generated.morph[tissue]
        words = TISSUES[tissue]
        rng = study.rng("volumes", tissue)
        mean_low, mean_high = mean_interval(made, generated.volumes.ids, study.resamples, rng)
        d = cohens_d(real, made)
        d_low = d_high = NAN
        if study.resamples and np.isfinite(d):
            counts_x = draw_counts(study.hold.volumes.ids, study.resamples, rng)
            counts_y = draw_counts(generated.volumes.ids, study.resamples, rng)
            replicates = weighted_d(real, made, counts_x, counts_y)
            d_low, d_high = bca_interval(d, replicates, _leave_one_out(real, made))
        ks, ks_p = kolmogorov_smirnov(real, made)
        n = f"n={len(real)}/{len(made)}"

        def score(quantity: str, label: str, value: float, **rest: Any) -> Score:
            return Score(
                key=f"volumes/{tissue}/{quantity}",
                name=f"volumes[{tissue},{quantity},{n}]",
                metric="volumes",
                features=None,
                label=f"{words}: {label}",
                value=value,
                n_real=len(real),
                n_generated=len(made),
                **rest,
            )

        return [
            score(
                "mean",
                "mean volume",
                float(made.mean()),
                low=mean_low,
                high=mean_high,
                better="near",
                target=float(real.mean()),
                unit="ml",
                note=f"HOLD {real.mean():.0f} (sd {real.std(ddof=1):.0f}) ml",
            ),
            score(
                "d",
                "effect size (Cohen's d)",
                d,
                low=d_low,
                high=d_high,
                better="near",
                target=0.0,
                note="below 0.2 in size is small",
            ),
            score("ks", "Kolmogorov-Smirnov gap", ks, p_value=ks_p),
            score("w1", "Wasserstein distance", wasserstein(real, made), unit="ml"),
        ]

    def _range(self, study: Study) -> tuple[float, float]:
        low, high = np.percentile(study.train.morph["brain_ml"], RANGE_PERCENTILES)
        return float(low), float(high)

    def _inside(self, evidence: Evidence, study: Study) -> np.ndarray:
        low, high = self._range(study)
        brain = evidence.morph["brain_ml"]
        return (brain >= low) & (brain <= high) & ~evidence.failed

    def _in_range(self, generated: Evidence, study: Study) -> Score:
        inside, real = self._inside(generated, study), self._inside(study.hold, study)
        low, high = share_interval(int(inside.sum()), len(inside))
        bounds = self._range(study)
        return Score(
            key="volumes/in_range",
            name=f"volumes[in-range,train-0.5-99.5,n={len(study.train)}/{len(inside)}]",
            metric="volumes",
            features=None,
            label="brains inside TRAIN's range of volume",
            value=float(inside.mean()),
            low=low,
            high=high,
            n_real=len(study.train),
            n_generated=len(inside),
            better="higher",
            note=f"{bounds[0]:.0f}-{bounds[1]:.0f} ml; HOLD outside it: {1 - real.mean():.1%}",
        )

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return the volumes of every sample and whether its brain is in range."""
        columns: dict[str, list[Any]] = {
            name: [float(v) for v in generated.morph[name]]
            for name in ("brain_ml", "gm_ml", "wm_ml", "csf_ml")
        }
        columns["brain_in_range"] = [bool(v) for v in self._inside(generated, study)]
        return columns
