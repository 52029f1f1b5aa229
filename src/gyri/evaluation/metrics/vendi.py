"""Effective number of different samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gyri.evaluation.bootstrap import centred_interval, draw_counts
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Score, Study
from gyri.evaluation.metrics.manifold import equal_subsets
from gyri.registry import METRICS

RESAMPLES = 200


def cosine_kernel(x: FloatArray) -> FloatArray:
    """Return (n, n) cosines between the rows of x (n, d); 1 on the diagonal.

    Rows of zeros have no direction: they are like each other and like nothing else.
    """
    norm = np.linalg.norm(x, axis=1)
    empty = norm == 0
    unit = x / np.where(empty, 1.0, norm)[:, None]
    kernel = unit @ unit.T + np.outer(empty, empty)
    np.fill_diagonal(kernel, 1.0)
    return np.asarray(kernel)


def vendi_score(kernel: FloatArray, counts: FloatArray | None = None) -> float:
    """Return ``exp(-sum l log l)`` of the eigenvalues l of ``K / n`` (Friedman & Dieng 2023).

    The effective number of different items: 1 where all are alike, n where all are orthogonal.
    Higher is more diverse, real or not: read it against real subjects at the same n, on which it
    depends.

    Parameters
    ----------
    kernel : (n, n), positive semidefinite with ones on its diagonal.
    counts : (n,) how often each item was drawn.
    """
    weights = np.ones(len(kernel)) if counts is None else counts
    root = np.sqrt(weights / weights.sum())
    values = np.linalg.eigvalsh(kernel * root[:, None] * root[None, :])
    values = values[values > 0]
    return float(np.exp(-(values @ np.log(values))))


@METRICS.register("vendi")
class Vendi(Metric):
    """Vendi score of the cosine kernel on every feature set, quoted against HOLD at equal n.

    Best near HOLD's: below it samples repeat each other, or stray from TRAIN together; above it
    they differ more than subjects do. The larger set is cut to the smaller one's size, several
    times by seed. Cosines are of z-scored features, so that the mean subject is the origin. The
    interval resamples subjects and is centred on the value. Works from two samples. Blind to how
    real a sample is.
    """

    name = "vendi"
    family = "diversity"
    needs_unseen = False
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vendi/morph-v1": ("-mode_dropping",),
        "vendi/spectrum-v1": ("-mode_dropping",),
        "vendi/sw-v1": ("-mode_dropping",),
    }
    blind_to = "whether samples are real; on radiomics-v1, dropped modes until few are left"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the score for every feature set."""
        return [self._score(features, generated, study) for features in generated.features]

    def _score(self, features: str, generated: Evidence, study: Study) -> Score:
        kernel = cosine_kernel(generated.features[features])
        held = study.once(f"vendi/{features}", lambda: cosine_kernel(study.hold.features[features]))
        rows = equal_subsets(len(held), len(kernel), study.rng("vendi", features))
        real = float(np.mean([vendi_score(held[np.ix_(a, a)]) for a, _ in rows]))
        value = float(np.mean([vendi_score(kernel[np.ix_(b, b)]) for _, b in rows]))
        n = len(rows[0][0])
        low, high = self._interval(kernel, n, value, features, generated, study)
        return Score(
            key=f"vendi/{features}",
            name=f"vendi[{features},zscore-train,cosine,n={n}]",
            metric="vendi",
            features=features,
            label=f"effective number of different samples, {features}",
            value=value,
            low=low,
            high=high,
            n_real=len(held),
            n_generated=len(kernel),
            better="near",
            target=real,
            note=f"of {n}; {n} HOLD subjects have {real:.1f}",
        )

    def _interval(
        self,
        kernel: FloatArray,
        n: int,
        value: float,
        features: str,
        generated: Evidence,
        study: Study,
    ) -> tuple[float, float]:
        """Resample subjects among `n` of the samples at a time."""
        if not study.resamples:
            return NAN, NAN
        rng = study.rng("vendi", features, "bootstrap")
        ids = np.asarray(generated.volumes.ids)
        replicates = []
        for _ in range(min(study.resamples, RESAMPLES)):
            cut = np.sort(rng.permutation(len(ids))[:n])
            counts = draw_counts(list(ids[cut]), 1, rng)[0]
            replicates.append(vendi_score(kernel[np.ix_(cut, cut)], counts))
        low, high = centred_interval(value, np.array(replicates))
        return max(1.0, low), min(float(n), high)
