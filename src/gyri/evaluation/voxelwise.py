"""A segmenter that knows real scans alone: where a label belongs, by the intensities around it.

Every voxel is classified by gradient-boosted trees on all channels, their Gaussian means at two
scales and its place, in the manner of Geremia et al. 2011 (spatial decision forests for lesions).
It is weak beside a trained U-Net and needs no accelerator: what is read is not its Dice, but the
Dice on generated volumes against that on real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.anchors import mean_mask
from gyri.evaluation.features.extraction import num_workers
from gyri.evaluation.metrics import Refusal

Floats = NDArray[np.float32]
Labels = NDArray[np.int16]

SMOOTH_MM = (4.0, 10.0)
"""Standard deviations of the Gaussian means."""
MOST_CASES = 100
"""Volumes that it learns from at most."""
NUM_VOXELS = 60_000
"""Voxels that it learns from at most, half of them background."""
MOST_VALUES = 8
"""A map with more values is learned as label against background."""
LEAST_VOXELS = 5
"""A label of fewer voxels has no Dice worth reading."""
ROUNDS, LEARNING_RATE, LEAVES = 40, 0.2, 31


@dataclass(frozen=True)
class VoxelSegmenter:
    """A fitted segmenter of one label channel: where the label is, and then which value.

    Parameters
    ----------
    channels : intensity channels that are read, by name.
    mask : (I, J, K), where a label is looked for: TRAIN's mean brain.
    spacing_mm : of the grid.
    values : labels that it tells apart; (1,) where it knows label and background alone.
    place : classifier of (V, F) voxels, label against background in equal numbers.
    odds : least odds in `place` at which a voxel is label, such that the decision is that of the
        frequencies in TRAIN.
    part : classifier of the label's voxels; None for one value.
    """

    channels: tuple[str, ...]
    mask: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    values: tuple[int, ...]
    place: Any
    part: Any
    odds: float = 1.0

    @classmethod
    def fit(
        cls, train: VolumeSet, label: str, channels: Sequence[str], rng: np.random.Generator
    ) -> VoxelSegmenter:
        """Learn label channel `label` from subjects of `train`.

        Parameters
        ----------
        train : with `label` and `channels`.
        rng : draws cases and voxels.

        Raises
        ------
        Refusal
            If TRAIN's mean brain is all label, or holds none.
        """
        maps, mask = train.labels[label], mean_mask(train)
        blank = cls(tuple(channels), mask, train.grid.spacing_mm, (1,), _trees(), None)
        cases = np.sort(rng.permutation(len(train))[:MOST_CASES])
        inside = float((maps[cases] > 0)[:, mask].mean()) if mask.any() else 0.0
        if not 0 < inside < 1:
            raise Refusal(f"{label} fills {inside:.0%} of {train.name}'s mean brain.")
        drawn = [blank._draw(train, maps, case, NUM_VOXELS // len(cases), rng) for case in cases]
        x, y = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        is_label = y > 0
        drawn_odds = is_label.mean() / (1 - is_label.mean())
        odds = float(drawn_odds * (1 - inside) / inside)
        values = tuple(int(v) for v in np.unique(y[is_label]))
        place = blank.place.fit(x, is_label)
        if not 1 < len(values) <= MOST_VALUES:
            return replace(blank, place=place, odds=odds)
        part = _trees().fit(x[is_label], y[is_label])
        return replace(blank, place=place, odds=odds, values=values, part=part)

    def _draw(
        self, train: VolumeSet, maps: Labels, case: int, num: int, rng: np.random.Generator
    ) -> tuple[Floats, Labels]:
        """Draw `num` voxels of one case, half of them label where there are enough."""
        y = maps[case][self.mask]
        chosen = np.concatenate(
            [rng.permutation(np.flatnonzero(side))[: num // 2] for side in (y > 0, y == 0)]
        )
        return self._features(self._images(train, case))[chosen], y[chosen]

    def _images(self, volumes: VolumeSet, row: int) -> Floats:
        places = [volumes.channels.index(name) for name in self.channels]
        return np.asarray(volumes.volumes[row][places], np.float32)

    def _features(self, images: Floats) -> Floats:
        """Return (V, F) of the mask's voxels: intensities, their means, their place in [-1, 1]."""
        from scipy import ndimage

        columns: list[NDArray[Any]] = [images[:, self.mask]]
        for smooth_mm in SMOOTH_MM:
            sigma = [smooth_mm / s for s in self.spacing_mm]
            means = [ndimage.gaussian_filter(image, sigma, mode="nearest") for image in images]
            columns.append(np.stack(means)[:, self.mask])
        sizes = np.maximum(np.array(self.mask.shape, np.float32) - 1, 1)
        columns.append(2 * np.argwhere(self.mask).T.astype(np.float32) / sizes[:, None] - 1)
        return np.ascontiguousarray(np.concatenate(columns).T, np.float32)

    def find(self, volumes: VolumeSet, rows: NDArray[np.int64]) -> list[Labels]:
        """Return the label (I, J, K) that it sees in each of the volumes `rows`, 0 for none."""

        def one(row: int) -> Labels:
            x = self._features(self._images(volumes, row))
            chance = self.place.predict_proba(x)[:, 1]
            seen = chance > self.odds * (1 - chance)
            y = np.where(seen, np.int16(self.values[0]), np.int16(0))
            if self.part is not None and seen.any():
                y[seen] = self.part.predict(x[seen])
            out = np.zeros(self.mask.shape, np.int16)
            out[self.mask] = y
            return out

        with ThreadPoolExecutor(num_workers()) as pool:
            return list(pool.map(one, rows))


def _trees() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        learning_rate=LEARNING_RATE,
        max_iter=ROUNDS,
        max_leaf_nodes=LEAVES,
        early_stopping=False,
        random_state=0,
    )


def dice(found: Labels, label: Labels, values: Sequence[int]) -> NDArray[np.float64]:
    """Return Dice coefficients (1 + len(values),): of the whole label, and of each value.

    1 for agreement, 0 for disjoint places; NaN where `label` has fewer than `LEAST_VOXELS` of it,
    since then one voxel decides.
    """
    pairs = [(found > 0, label > 0), *((found == v, label == v) for v in values)]
    return np.array(
        [
            2.0 * (a & b).sum() / (a.sum() + b.sum()) if b.sum() >= LEAST_VOXELS else np.nan
            for a, b in pairs
        ]
    )
