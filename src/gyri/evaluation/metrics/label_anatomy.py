"""How large labelled lesions are, where they lie and in how many pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.bootstrap import (
    centred_interval,
    draw_counts,
    mean_interval,
    percentile_interval,
    share_interval,
)
from gyri.evaluation.effects import kolmogorov_smirnov, wasserstein
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Score, Study
from gyri.evaluation.metrics.anatomy import energy_kernel
from gyri.evaluation.metrics.kernel import (
    PERMUTATIONS,
    permutation_p_value,
    plain_distance,
    weighted_distances,
)
from gyri.evaluation.metrics.labels import FEW_CASES, LEAST_CASES, shared_labels
from gyri.evaluation.segment import brain_mask
from gyri.evaluation.voxelwise import MOST_VALUES
from gyri.registry import METRICS


@dataclass(frozen=True)
class Shapes:
    """What is known of one label channel of n volumes.

    Parameters
    ----------
    ids : n subjects.
    ml : (n,) millilitres of the whole label, 0 where a volume has none.
    part_ml : millilitres (n,) of each value.
    centre_mm : (n, 3) centre of mass in world coordinates, NaN where a volume has no label.
    pieces : (n,) pieces, voxels that touch by a corner together.
    outside : (n,) share of the label outside the image's own brain; NaN as above.
    """

    ids: list[str]
    ml: FloatArray
    part_ml: dict[int, FloatArray]
    centre_mm: FloatArray
    pieces: FloatArray
    outside: FloatArray

    @classmethod
    def of(cls, volumes: VolumeSet, label: str, values: Sequence[int] = ()) -> Shapes:
        """Measure label channel `label`, and the volumes of its `values`.

        The brain is what the judge's own segmentation calls so in the first channel.
        """
        from scipy import ndimage

        maps = volumes.labels[label]
        spacing_mm, affine = volumes.grid.spacing_mm, np.array(volumes.grid.affine)
        voxel_ml = float(np.prod(spacing_mm)) / 1000
        size = len(maps)
        centre, outside = np.full((size, 3), NAN), np.full(size, NAN)
        pieces = np.zeros(size)
        for row, labels in enumerate(maps):
            inside = labels > 0
            if not inside.any():
                continue
            centre[row] = affine[:3, :3] @ np.argwhere(inside).mean(0) + affine[:3, 3]
            pieces[row] = ndimage.label(inside, np.ones((3, 3, 3)))[1]
            brain = brain_mask(volumes.volumes[row, 0], spacing_mm)[0]
            outside[row] = (inside & ~brain).sum() / inside.sum()
        axes = (1, 2, 3)
        return cls(
            volumes.ids,
            (maps > 0).sum(axes) * voxel_ml,
            {value: (maps == value).sum(axes) * voxel_ml for value in values},
            centre,
            pieces,
            outside,
        )

    def named(self, known: np.ndarray) -> list[str]:
        """Return the ids of the rows `known`."""
        return [name for name, keep in zip(self.ids, known) if keep]


def weighted_w1(
    x: FloatArray, y: FloatArray, counts_x: FloatArray, counts_y: FloatArray
) -> FloatArray:
    """Return (R,) Wasserstein-1 distances of resamples given as counts (R, n) and (R, m)."""
    pooled = np.concatenate([x, y])
    order = np.argsort(pooled)
    steps = np.diff(pooled[order])
    weights = np.concatenate(
        [counts_x / counts_x.sum(1)[:, None], -counts_y / counts_y.sum(1)[:, None]], axis=1
    )
    gap = np.abs(np.cumsum(weights[:, order], axis=1)[:, :-1])
    return np.asarray(gap @ steps)


def weighted_median(x: FloatArray, counts: FloatArray) -> FloatArray:
    """Return (R,) lower medians of (n,) values in resamples given as counts (R, n)."""
    order = np.argsort(x)
    share = np.cumsum(counts[:, order], axis=1) / counts.sum(1)[:, None]
    return np.asarray(x[order][(share >= 0.5).argmax(1)])


@METRICS.register("label_anatomy")
class LabelAnatomy(Metric):
    """Volume, place and pieces of the labels against HOLD's, and what of them lies outside.

    Volumes count a volume without the label as 0 ml: median (near HOLD's), KS gap and Wasserstein
    distance (0 best), the latter for each value, too. The share of volumes without the label, and
    the mean number of pieces, are best near HOLD's. Place is the centre of mass of a label in
    world millimetres: how far apart the mean centres are (0 best), and the energy distance of the
    centres with 1,000 permutations (0 for equal distributions, negative values legal). Outside is
    the mean share of a label outside its own image's brain (0 best). Intervals resample subjects.
    Needs 3 volumes; place, pieces and outside 3 with a label; below 10 they do not lead.
    """

    name = "label_anatomy"
    family = "anatomy"
    same_grid = False
    reads_intensities = False
    min_generated = LEAST_CASES
    sees: ClassVar = {}
    blind_to = "the images, but for their outline, and the shape of a piece"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the scores of every label channel."""
        scores: list[Score] = []
        for label in shared_labels(generated, study):
            values = [int(v) for v in np.unique(study.hold.volumes.labels[label]) if v > 0]
            values = values if 1 < len(values) <= MOST_VALUES else []
            measure = partial(Shapes.of, study.hold.volumes, label, values)
            real = study.once(f"label_anatomy/{label}", measure)
            made = Shapes.of(generated.volumes, label, values)
            judged = _Label(label, made, real, study)
            scores += [*judged.size(), *judged.parts(), *judged.place(), *judged.form()]
        return scores

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return millilitres and pieces of every label channel."""
        columns: dict[str, list[Any]] = {}
        for label in generated.volumes.labels:
            shapes = Shapes.of(generated.volumes, label)
            columns[f"{label}_ml"] = [float(v) for v in shapes.ml]
            columns[f"{label}_pieces"] = [int(v) for v in shapes.pieces]
        return columns


@dataclass(frozen=True)
class _Label:
    """One label channel, generated and real."""

    name: str
    made: Shapes
    real: Shapes
    study: Study

    def _score(self, quantity: str, n: tuple[int, int], words: str, **rest: Any) -> Score:
        return Score(
            key=f"label_anatomy/{self.name}/{quantity}",
            name=f"label_anatomy[{self.name},{quantity.replace('/', ',')},n={n[0]}/{n[1]}]",
            metric="label_anatomy",
            features=None,
            label=f"{self.name}: {words}",
            n_real=n[0],
            n_generated=n[1],
            reliable=min(n) >= FEW_CASES,
            **rest,
        )

    def _counts(
        self, stream: str, made_ids: Sequence[str], real_ids: Sequence[str]
    ) -> tuple[FloatArray, FloatArray] | None:
        """Return resamples of HOLD and of the generated set; None where there are to be none."""
        if not self.study.resamples:
            return None
        rng = self.study.rng("label_anatomy", self.name, stream)
        real, made = (draw_counts(ids, self.study.resamples, rng) for ids in (real_ids, made_ids))
        return real, made

    def _w1(self, quantity: str, words: str, made: FloatArray, real: FloatArray) -> Score:
        value = wasserstein(real, made)
        low, high = NAN, NAN
        if counts := self._counts(quantity, self.made.ids, self.real.ids):
            low, high = centred_interval(value, weighted_w1(real, made, *counts))
        n = len(real), len(made)
        return self._score(quantity, n, words, value=value, low=max(low, 0.0), high=high, unit="ml")

    def size(self) -> list[Score]:
        """Return the share without the label, and how the volumes are distributed."""
        made, real = self.made.ml, self.real.ml
        n = len(real), len(made)
        empty = share_interval(int((made == 0).sum()), len(made))
        low, high = NAN, NAN
        if counts := self._counts("median", self.made.ids, self.real.ids):
            low, high = percentile_interval(weighted_median(made, counts[1]))
        ks, p_value = kolmogorov_smirnov(real, made)
        return [
            self._score(
                "empty",
                n,
                "volumes without it",
                value=float((made == 0).mean()),
                low=empty[0],
                high=empty[1],
                better="near",
                target=float((real == 0).mean()),
            ),
            self._score(
                "median_ml",
                n,
                "median volume",
                value=float(np.median(made)),
                low=low,
                high=high,
                better="near",
                target=float(np.median(real)),
                unit="ml",
                note=f"quartiles {_quartiles(made)}, HOLD {_quartiles(real)}",
            ),
            self._score("ks", n, "volume, Kolmogorov-Smirnov gap", value=ks, p_value=p_value),
            self._w1("w1", "volume, Wasserstein distance", made, real),
        ]

    def parts(self) -> list[Score]:
        """Return the distance of every value's volumes."""
        return [
            self._w1(
                f"{value}/w1",
                f"volume of value {value}, Wasserstein distance",
                self.made.part_ml[value],
                real,
            )
            for value, real in self.real.part_ml.items()
        ]

    def place(self) -> list[Score]:
        """Return how far the centres of mass are apart; nothing where too few have a label."""
        known, known_real = (np.isfinite(s.centre_mm[:, 0]) for s in (self.made, self.real))
        y, x = self.made.centre_mm[known], self.real.centre_mm[known_real]
        n = len(x), len(y)
        if min(n) < LEAST_CASES:
            return []
        kernel = energy_kernel(x, y)
        shift, energy = float(np.linalg.norm(y.mean(0) - x.mean(0))), plain_distance(kernel, len(x))
        intervals = [(NAN, NAN), (NAN, NAN)]
        p_value = None
        ids = self.made.named(known), self.real.named(known_real)
        if counts := self._counts("place", *ids):
            real, made = counts
            means = made @ y / made.sum(1)[:, None] - real @ x / real.sum(1)[:, None]
            found = weighted_distances(kernel, len(x), real, made)
            low, high = centred_interval(shift, np.linalg.norm(means, axis=1))
            intervals = [(max(low, 0.0), high), centred_interval(energy, found)]
            rng = self.study.rng("label_anatomy", self.name, "permutations")
            p_value = permutation_p_value(kernel, len(x), PERMUTATIONS, rng)
        names = ("left-right", "back-front", "foot-head")
        gaps = ", ".join(f"{axis} {gap:+.1f}" for axis, gap in zip(names, y.mean(0) - x.mean(0)))
        return [
            self._score(
                "place",
                n,
                "distance of the mean centres",
                value=shift,
                low=intervals[0][0],
                high=intervals[0][1],
                unit="mm",
                note=f"{gaps} mm",
            ),
            self._score(
                "place_energy",
                n,
                "energy distance of the centres",
                value=energy,
                low=intervals[1][0],
                high=intervals[1][1],
                target=0.0,
                unit="mm",
                p_value=p_value,
                note="unbiased; negative values are legal",
            ),
        ]

    def form(self) -> list[Score]:
        """Return pieces and what lies outside the brain; nothing where too few have a label."""
        known, known_real = self.made.pieces > 0, self.real.pieces > 0
        n = int(known_real.sum()), int(known.sum())
        if min(n) < LEAST_CASES:
            return []
        ids = self.made.named(known)
        pieces, outside = self.made.pieces[known], self.made.outside[known]
        real_pieces = float(self.real.pieces[known_real].mean())
        real_outside = float(self.real.outside[known_real].mean())
        resamples, rng = self.study.resamples, self.study.rng("label_anatomy", self.name, "form")
        low, high = mean_interval(pieces, ids, resamples, rng)
        low_out, high_out = mean_interval(outside, ids, resamples, rng)
        single = float((pieces == 1).mean())
        return [
            self._score(
                "pieces",
                n,
                "mean number of pieces",
                value=float(pieces.mean()),
                low=low,
                high=high,
                better="near",
                target=real_pieces,
                note=f"in one piece: {single:.0%}",
            ),
            self._score(
                "outside",
                n,
                "share outside the image's brain",
                value=float(outside.mean()),
                low=low_out,
                high=high_out,
                note=f"HOLD {real_outside:.2%}",
            ),
        ]


def _quartiles(values: FloatArray) -> str:
    low, high = np.percentile(values, [25, 75])
    return f"{low:.3g}-{high:.3g} ml"
