"""Brain and tissue volumes in millilitres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gyri.evaluation.bootstrap import mean_interval, share_interval
from gyri.evaluation.effects import Effect, compare
from gyri.evaluation.metrics import Evidence, Metric, Score, Study
from gyri.registry import METRICS

TISSUES = {
    "brain_ml": "brain",
    "gm_ml": "grey matter",
    "wm_ml": "white matter",
    "csf_ml": "CSF",
    "central_csf_ml": "ventricles",
}
RANGE_PERCENTILES = (0.5, 99.5)


@METRICS.register("volumes")
class Volumes(Metric):
    """Means, effect sizes, KS and W1 of five tissue volumes; share of brains in TRAIN's range.

    Mean and d are best near HOLD's mean and 0; KS and W1 best at 0, with p-values after Holm's
    correction over all features of ``morph-v1``; the share best near HOLD's own. One segmenter
    with the same settings on both sides; a brain it cannot find counts as 0 ml. Needs n >= 3; KS
    says little below 20. The other features of ``morph-v1`` are judged by `anatomy`.
    """

    name = "volumes"
    family = "anatomy"
    same_grid = False
    min_generated = 3
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {"volumes/csf_ml/w1": ("+blur",)}
    blind_to = "where the tissue is"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return four scores for each tissue and the share in range."""
        effects = compare(generated, study)
        scores = [
            score
            for tissue in TISSUES
            if tissue in effects
            for score in self._tissue(tissue, effects[tissue], generated, study)
        ]
        return [*scores, self._in_range(generated, study)]

    def _tissue(
        self, tissue: str, effect: Effect, generated: Evidence, study: Study
    ) -> list[Score]:
        real, made = effect.real, effect.made
        words = TISSUES[tissue]
        rng = study.rng("volumes", tissue)
        mean_low, mean_high = mean_interval(made, generated.volumes.ids, study.resamples, rng)
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
                effect.d,
                low=effect.low,
                high=effect.high,
                better="near",
                target=0.0,
                note="below 0.2 in size is small",
            ),
            score("ks", "Kolmogorov-Smirnov gap", effect.ks, p_value=effect.p_value),
            score("w1", "Wasserstein distance", effect.w1, unit="ml"),
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
