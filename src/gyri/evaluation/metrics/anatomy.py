"""Whether the whole vector of morphometry is distributed as in unseen subjects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import (
    bca_interval,
    draw_counts,
    percentile_interval,
    share_interval,
)
from gyri.evaluation.distances import squared_distances
from gyri.evaluation.effects import Effect, compare
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.evaluation.metrics.kernel import estimate
from gyri.evaluation.metrics.volumes import RANGE_PERCENTILES, TISSUES
from gyri.registry import METRICS

FEATURES = {
    "gm_fraction": ("grey matter's share of the brain", ""),
    "wm_fraction": ("white matter's share of the brain", ""),
    "csf_fraction": ("CSF's share of the brain", ""),
    "asymmetry": ("left-right asymmetry", ""),
    "mirror_correlation": ("correlation with the mirror image", ""),
    "components": ("pieces of the mask", ""),
    "holes_ml": ("holes of the mask", "ml"),
    "surface_per_volume_mm": ("surface per volume", "1/mm"),
    "centre_i_mm": ("centre, left-right", "mm"),
    "centre_j_mm": ("centre, back-front", "mm"),
    "centre_k_mm": ("centre, foot-head", "mm"),
    "extent_i_mm": ("extent, left-right", "mm"),
    "extent_j_mm": ("extent, back-front", "mm"),
    "extent_k_mm": ("extent, foot-head", "mm"),
}
"""Features of ``morph-v1`` that `volumes` does not report: words and unit."""
SMALL_D, D_LIMIT, SMALL_SHARE = 0.2, 0.5, 0.8
AGE, VENTRICLES = "age", "central_csf_ml"
MIN_AGES = 10
"""Fewer ages give no slope worth reading."""


def is_small(effect: Effect) -> bool:
    """Say whether an effect is small and known well enough to say so."""
    return abs(effect.d) < SMALL_D and effect.low > -D_LIMIT and effect.high < D_LIMIT


def energy_kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return minus the Euclidean distances within the pooled rows of x (n, d) and y (m, d).

    The squared kernel distance of this kernel is the energy distance
    ``2 E|x - y| - E|x - x'| - E|y - y'|`` (Szekely and Rizzo 2013; Sejdinovic et al. 2013).
    """
    pooled = np.concatenate([x, y])
    squared = squared_distances(pooled, pooled)
    return -np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)


def slopes(x: FloatArray, y: FloatArray, counts: FloatArray) -> FloatArray:
    """Return (R,) least-squares slopes of y on x, rows counted as in counts (R, n).

    NaN for a resample in which x does not vary.
    """
    total = counts.sum(1)
    mean_x, mean_y = counts @ x / total, counts @ y / total
    spread = counts @ x**2 / total - mean_x**2
    joint = counts @ (x * y) / total - mean_x * mean_y
    return np.divide(joint, spread, out=np.full_like(joint, NAN), where=spread > 1e-9)


@METRICS.register("anatomy")
class Anatomy(Metric):
    """Effect sizes, KS and W1 of all morphometry, its joint distance, and plausible bands.

    For every feature of ``morph-v1`` that `volumes` does not report: Cohen's d (0 is best), KS
    with Holm's correction over the whole vector and W1 (0 best). Together: the share of all
    features with d below 0.2 in size and its interval within 0.5 (80 % wanted; chance alone puts
    12 % of d beyond 0.2 at 150 against 100 volumes, a quarter at 50); the energy distance on
    z-scored features with 1,000 permutations (0 for equal distributions, negative values legal);
    the share of volumes with every tissue inside TRAIN's 0.5 to 99.5 percentiles (HOLD's own share
    stands beside it); and, where ages are known, the slope of ventricular volume on age, which
    should lie near HOLD's. Needs n >= 3, the slope 10 ages. Blind to which feature goes with
    which, except in the energy distance.
    """

    name = "anatomy"
    family = "anatomy"
    min_generated = 3
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {"anatomy/energy": ("+blur", "+rotation")}
    blind_to = "texture, noise that the segmentation smooths away, and where inside the brain"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return three scores for each feature and four of the vector as a whole."""
        effects = compare(generated, study)
        scores = [
            score
            for name in FEATURES
            if name in effects
            for score in self._feature(name, effects[name])
        ]
        scores += [self._small(effects), self._energy(generated, study)]
        return [*scores, self._in_range(generated, study), *self._slope(generated, study)]

    def _score(self, quantity: str, n: tuple[int, int], **rest: Any) -> Score:
        return Score(
            key=f"anatomy/{quantity}",
            name=f"anatomy[{quantity.replace('/', ',')},n={n[0]}/{n[1]}]",
            metric="anatomy",
            features=None,
            n_real=n[0],
            n_generated=n[1],
            **rest,
        )

    def _feature(self, name: str, effect: Effect) -> list[Score]:
        words, unit = FEATURES[name]
        n = len(effect.real), len(effect.made)
        mean, real = effect.made.mean(), effect.real.mean()
        d: dict[str, Any] = {"value": effect.d, "low": effect.low, "high": effect.high}
        return [
            self._score(
                f"{name}/d",
                n,
                label=f"{words}: effect size (Cohen's d)",
                better="near",
                target=0.0,
                note=f"mean {mean:.3g}{unit and ' '}{unit}, HOLD {real:.3g}",
                **d,
            ),
            self._score(
                f"{name}/ks",
                n,
                label=f"{words}: Kolmogorov-Smirnov gap",
                value=effect.ks,
                p_value=effect.p_value,
            ),
            self._score(
                f"{name}/w1",
                n,
                label=f"{words}: Wasserstein distance",
                value=effect.w1,
                unit=unit,
            ),
        ]

    def _small(self, effects: dict[str, Effect]) -> Score:
        if not effects:
            raise Refusal("every feature of morph-v1 is constant on TRAIN, nothing to compare.")
        small = {name: is_small(effect) for name, effect in effects.items()}
        first = next(iter(effects.values()))
        rejected = sum(effect.p_value < 0.05 for effect in effects.values())
        return self._score(
            "small",
            (len(first.real), len(first.made)),
            label="features with a small effect size",
            value=sum(small.values()) / len(small),
            better="higher",
            note=f"{sum(small.values())} of {len(small)} features; {SMALL_SHARE:.0%} wanted; KS "
            f"rejects {rejected} (Holm, 5 %)",
        )

    def _energy(self, generated: Evidence, study: Study) -> Score:
        x, y = study.hold.features["morph-v1"], generated.features["morph-v1"]
        kernel = energy_kernel(x, y)
        value, low, high, p_value = estimate(kernel, generated, study, "anatomy", "energy")
        return self._score(
            "energy",
            (len(x), len(y)),
            label="energy distance of all morphometry",
            value=value,
            low=low,
            high=high,
            target=0.0,
            p_value=p_value,
            note="unbiased; negative values are legal",
        )

    def _bands(self, study: Study) -> dict[str, tuple[float, float]]:
        found = {}
        for tissue in TISSUES:
            low, high = np.percentile(study.train.morph[tissue], RANGE_PERCENTILES)
            found[tissue] = float(low), float(high)
        return found

    def _outside(self, evidence: Evidence, study: Study) -> dict[str, NDArray[np.bool_]]:
        """Return, for each tissue, which volumes lie outside TRAIN's band or failed."""
        return {
            tissue: (evidence.morph[tissue] < low)
            | (evidence.morph[tissue] > high)
            | evidence.failed
            for tissue, (low, high) in self._bands(study).items()
        }

    def _in_range(self, generated: Evidence, study: Study) -> Score:
        outside = self._outside(generated, study)
        inside = ~np.logical_or.reduce(list(outside.values()))
        real = ~np.logical_or.reduce(list(self._outside(study.hold, study).values()))
        low, high = share_interval(int(inside.sum()), len(inside))
        often = ", ".join(
            f"{TISSUES[tissue]} {wrong.mean():.0%}"
            for tissue, wrong in outside.items()
            if wrong.any()
        )
        return self._score(
            "in_range",
            (len(study.train), len(inside)),
            label="volumes with every tissue inside TRAIN's range",
            value=float(inside.mean()),
            low=low,
            high=high,
            better="higher",
            note=f"HOLD outside it: {1 - real.mean():.1%}"
            + (f"; outside: {often}" if often else ""),
        )

    def _slope(self, generated: Evidence, study: Study) -> list[Score]:
        """Ventricular volume on age; nothing where ages are not known."""
        real, made = _ages(study.hold), _ages(generated)
        if real is None or made is None:
            return []
        value, low, high = _fit(generated, made, study, "generated")
        target, real_low, real_high = _fit(study.hold, real, study, "hold")
        words = f"HOLD {target:.2f} ({real_low:.2f} to {real_high:.2f})" if study.resamples else ""
        if study.resamples:
            meets = low <= real_high and real_low <= high
            words += f"; the intervals {'overlap' if meets else 'do not overlap'}"
        return [
            self._score(
                "ventricle_age_slope",
                (int(real.sum()), int(made.sum())),
                label="ventricles: growth with age",
                value=value,
                low=low,
                high=high,
                better="near",
                target=target,
                unit="ml/year",
                note=words,
            )
        ]

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return the ventricles of every sample and whether all its tissues are in range."""
        inside = ~np.logical_or.reduce(list(self._outside(generated, study).values()))
        return {
            VENTRICLES: [float(v) for v in generated.morph[VENTRICLES]],
            "tissues_in_range": [bool(v) for v in inside],
        }


def _ages(evidence: Evidence) -> NDArray[np.bool_] | None:
    """Return which volumes have an age; None where there are too few to fit a slope."""
    if AGE not in evidence.volumes.table:
        return None
    age = _numbers(evidence)
    known = np.isfinite(age)
    return known if known.sum() >= MIN_AGES and np.ptp(age[known]) > 0 else None


def _numbers(evidence: Evidence) -> FloatArray:
    column = pd.to_numeric(evidence.volumes.table[AGE], errors="coerce")
    return np.asarray(column, np.float64)


def _fit(
    evidence: Evidence, rows: NDArray[np.bool_], study: Study, stream: str
) -> tuple[float, float, float]:
    """Return slope and 95 % interval of ventricles on age, subjects resampled."""
    age, ventricles = _numbers(evidence)[rows], evidence.morph[VENTRICLES][rows]
    value = float(slopes(age, ventricles, np.ones((1, len(age))))[0])
    if not study.resamples:
        return value, NAN, NAN
    ids = [name for name, used in zip(evidence.volumes.ids, rows) if used]
    rng = study.rng("anatomy", "slope", stream)
    replicates = slopes(age, ventricles, draw_counts(ids, study.resamples, rng))
    if len(set(ids)) < len(ids):
        low, high = percentile_interval(replicates)
    else:
        jackknife = slopes(age, ventricles, 1.0 - np.eye(len(age)))
        low, high = bca_interval(value, replicates, jackknife)
    return value, low, high
