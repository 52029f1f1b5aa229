"""Precision, recall, density and coverage by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import draw_counts, percentile_interval
from gyri.evaluation.distances import below, paired, squared_distances
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

NEIGHBOURS = 5
SUBSETS = 20
"""Seeded subsets of the larger set over which the values are averaged."""

Rows = NDArray[np.int64]
QUANTITIES = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Points:
    """Two sets of features with the squared distances inside and between them.

    Parameters
    ----------
    real, generated : (n, d) and (m, d).
    within_real, within_generated, between : (n, n), (m, m) and (n, m).
    """

    real: FloatArray
    generated: FloatArray
    within_real: FloatArray
    within_generated: FloatArray
    between: FloatArray

    @classmethod
    def of(cls, real: FloatArray, generated: FloatArray) -> Points:
        """Measure all distances."""
        return cls(
            real,
            generated,
            squared_distances(real, real),
            squared_distances(generated, generated),
            squared_distances(real, generated),
        )

    def take(self, real: Rows, generated: Rows) -> Points:
        """Return some of the points of both sets."""
        return Points(
            self.real[real],
            self.generated[generated],
            self.within_real[np.ix_(real, real)],
            self.within_generated[np.ix_(generated, generated)],
            self.between[np.ix_(real, generated)],
        )

    def per_sample(self, k: int = NEIGHBOURS) -> dict[str, FloatArray]:
        """Return what the four quantities are means of, one entry a point.

        ``precision`` and ``density`` have one entry a generated point, ``recall`` and
        ``coverage`` one a real point. A ball is open: a point at exactly the radius is outside
        (strict <).
        """
        x, y = self.real, self.generated
        in_real_ball = below(self.between, _squared_radii(self.within_real, x, k), x, y)
        radii = _squared_radii(self.within_generated, y, k)
        in_generated_ball = below(self.between.T, radii, y, x).T
        return {
            "precision": in_real_ball.any(0).astype(np.float64),
            "density": in_real_ball.sum(0) / k,
            "recall": in_generated_ball.any(1).astype(np.float64),
            "coverage": in_real_ball.any(1).astype(np.float64),
        }


def _squared_radii(within: FloatArray, x: FloatArray, k: int) -> FloatArray:
    """Squared distance to the k-th neighbour; the point itself, at index 0, does not count."""
    neighbour = np.argpartition(within, k, axis=1)[:, k]
    return paired(x, x, np.arange(len(x)), neighbour)


def prdc(real: FloatArray, generated: FloatArray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Return precision, recall, density and coverage (Kynkäänniemi 2019, Naeem 2020).

    Higher is better; all in [0, 1] but density, which is about 1 for equal distributions. A
    perfect generator does not reach 1 in precision and recall: read them beside the TRAIN-HOLD
    ceiling. Needs equal n of at least k + 2 on both sides.

    Parameters
    ----------
    real, generated : (n, d) features.
    k : neighbours that make a ball.
    """
    per_sample = Points.of(real, generated).per_sample(k)
    return {name: float(values.mean()) for name, values in per_sample.items()}


def coverage_null(n: int, k: int = NEIGHBOURS) -> float:
    """Return the expected coverage of n samples by n samples of the same distribution."""
    i = np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (2 * n - i)))


def equal_subsets(
    num_real: int, num_generated: int, rng: np.random.Generator
) -> list[tuple[Rows, Rows]]:
    """Return pairs of row indices of equal length: the larger set cut at random, several times."""
    n = min(num_real, num_generated)
    rounds = 1 if num_real == num_generated else SUBSETS
    return [
        (np.sort(rng.permutation(num_real)[:n]), np.sort(rng.permutation(num_generated)[:n]))
        for _ in range(rounds)
    ]


@METRICS.register("prdc")
class Manifold(Metric):
    """Precision, recall, density and coverage with 5 neighbours at equal n.

    Higher is better. The larger set is cut to the smaller one's size; values are means over 20
    seeded subsets. Sensitive to outliers (precision, recall) less so density and coverage; needs
    n >= 7. The interval resamples points with the balls held fixed.
    """

    name = "prdc"
    sees: ClassVar = {
        "coverage/*": ("-mode_dropping",),
        "coverage/morph-v1": ("-rotation", "-repetition"),
        "coverage/radiomics-v1": ("-blur", "-noise", "-bias_field", "-repetition", "-clipping"),
        "coverage/spectrum-v1": ("-blur", "-noise", "-bias_field", "-repetition"),
        "coverage/sw-v1": ("-repetition",),
        "recall/*": ("-mode_dropping",),
        "recall/radiomics-v1": ("-blur", "-noise", "-bias_field"),
        "precision/radiomics-v1": ("-blur", "-bias_field"),
        "density/radiomics-v1": ("-blur", "-noise", "-bias_field", "-repetition"),
    }
    blind_to = (
        "precision and density: dropped modes, under which they rise, as they do for any set that "
        "keeps to the middle of the real one; copies of TRAIN look perfect to all four"
    )
    min_generated = NEIGHBOURS + 2

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the four quantities for every feature set."""
        return [
            s for features in generated.features for s in self._four(features, generated, study)
        ]

    def _four(self, features: str, generated: Evidence, study: Study) -> list[Score]:
        real, made = study.hold.features[features], generated.features[features]
        n = min(len(real), len(made))
        if n < self.min_generated:
            raise Refusal(
                f"{n} volumes in the smaller set; precision and coverage with {NEIGHBOURS} "
                f"neighbours need at least {self.min_generated}."
            )
        rng = study.rng("prdc", features)
        points = Points.of(real, made)
        found: dict[str, list[FloatArray]] = {name: [] for name in QUANTITIES}
        rows = equal_subsets(len(real), len(made), rng)
        for a, b in rows:
            for name, values in points.take(a, b).per_sample().items():
                found[name].append(values)
        return [
            self._score(name, features, found[name], rows, generated, study) for name in QUANTITIES
        ]

    def _score(
        self,
        name: str,
        features: str,
        values: list[FloatArray],
        rows: list[tuple[Rows, Rows]],
        generated: Evidence,
        study: Study,
    ) -> Score:
        side = 1 if name in ("precision", "density") else 0
        ids = (generated if side else study.hold).volumes.ids
        total, seen = np.zeros(len(ids)), np.zeros(len(ids))
        for value, pair in zip(values, rows):
            np.add.at(total, pair[side], value)
            np.add.at(seen, pair[side], 1.0)
        low = high = NAN
        if study.resamples:
            counts = draw_counts(ids, study.resamples, study.rng("prdc", features, name))
            with np.errstate(invalid="ignore", divide="ignore"):
                low, high = percentile_interval((counts @ total) / (counts @ seen))
        n = len(values[0])
        return Score(
            key=f"{name}/{features}",
            name=f"{name}[{features},zscore-train,k={NEIGHBOURS},n={n}]",
            metric="prdc",
            features=features,
            label=f"{name}, {features}",
            value=float(total.sum() / seen.sum()),
            low=low,
            high=high,
            n_real=len(study.hold),
            n_generated=len(generated),
            better="higher",
            note=f"expected {coverage_null(n):.2f} for a perfect generator"
            if name == "coverage"
            else "read beside the ceiling",
        )
