"""Spaces in which two brains are near or far.

Every space treats TRAIN and unseen subjects alike: nothing in it is centred or scaled by TRAIN
alone. Otherwise a difference between the two would be built into the distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.features import FloatArray
from gyri.evaluation.metrics.nearest import MASK_SHARE
from gyri.evaluation.privacy.measures import Sides

VOXELS = "voxels"
"""Name of the space of residual voxel correlations."""

CHUNK = 16
CELL_SIZE = 40
COORDINATES = 6

Rows = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Space:
    """Distances to real subjects.

    Parameters
    ----------
    name : ``voxels`` or a feature set's name.
    distances : (N, P); the first P rows are the real subjects themselves (infinite to
        themselves), the others are candidates.
    cells : (N,) which cell of the space each row lies in.
    dimensions : of Euclidean coordinates; 0 where the distance is that of correlations.
    """

    name: str
    distances: FloatArray
    cells: Rows
    dimensions: int = 0

    @classmethod
    def build(cls, name: str, distances: FloatArray, dimensions: int = 0) -> Space:
        """Add cells: those of a candidate are the ones of its nearest real subject."""
        real = find_cells(distances[: distances.shape[1]])
        cells = np.concatenate([real, real[distances[len(real) :].argmin(1)]])
        return cls(name, distances, cells, dimensions)

    def sides(self, rows: Rows, train: Rows, hold: Rows) -> Sides:
        """Return the distances among candidates `rows`, members `train` and non-members `hold`."""
        towards = self.distances[rows]
        return Sides(
            to_train=towards[:, train],
            to_hold=towards[:, hold],
            train=self.distances[np.ix_(train, train)],
            hold_to_train=self.distances[np.ix_(hold, train)],
            cells=self.cells[rows],
            hold_cells=self.cells[hold],
            dimensions=self.dimensions,
        )


def find_cells(real: FloatArray) -> Rows:
    """Cut the space into cells of about 40 real subjects, blind to who was trained on.

    k-means on the leading principal coordinates of the distances (P, P).
    """
    from scipy.cluster.vq import kmeans2

    count = len(real) // CELL_SIZE
    if count < 2:
        return np.zeros(len(real), np.int64)
    squared = np.where(np.isfinite(real), real, 0.0) ** 2
    gram = -(squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()) / 2
    value, vector = np.linalg.eigh((gram + gram.T) / 2)
    top = slice(-min(COORDINATES, len(real) - 1), None)
    coordinates = vector[:, top] * np.sqrt(np.maximum(value[top], 0))
    _, cells = kmeans2(coordinates, count, minit="++", rng=0)
    return np.asarray(cells, np.int64)


def merge_scans(distances: FloatArray, subjects: Sequence[str]) -> FloatArray:
    """Turn distances between scans into distances between people, the nearest scans counting.

    Parameters
    ----------
    distances : (N, P), the first P rows are the scans of the columns.
    subjects : whose the P scans are; those of a person follow one another.

    Returns
    -------
    FloatArray
        (N', P'), people instead of scans; a person is infinitely far from itself.
    """
    names = np.asarray(subjects, dtype=str)
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    if len(starts) < len(names):
        columns = np.minimum.reduceat(distances, starts, axis=1)
        real = np.minimum.reduceat(columns[: len(names)], starts, axis=0)
        distances = np.concatenate([real, columns[len(names) :]])
    else:
        distances = distances.copy()
    np.fill_diagonal(distances[: len(starts)], np.inf)
    return distances


def feature_distances(real: FloatArray, candidates: FloatArray) -> FloatArray:
    """Return (P + Q, P) Euclidean distances of features z-scored by all real subjects.

    Columns that real subjects share are left out.
    """
    from scipy.spatial.distance import cdist

    spread = real.std(0, ddof=1)
    kept = spread > 1e-9 * np.maximum(np.abs(real).mean(0), 1e-12)
    both = (np.concatenate([real, candidates])[:, kept] - real.mean(0)[kept]) / spread[kept]
    return np.asarray(cdist(both, both[: len(real)]))


@dataclass(frozen=True)
class Brain:
    """Where voxels are compared, and the mean that is taken off for numerical reasons.

    Parameters
    ----------
    mask : (I, J, K), symmetric.
    mean : (C, V) symmetric mean of the real subjects.
    """

    mask: BoolArray
    mean: NDArray[np.float32]

    @classmethod
    def of(cls, real: Sequence[VolumeSet]) -> Brain:
        """Measure the mean brain of all real subjects."""
        total = np.sum([members.volumes.sum(0, dtype=np.float64) for members in real], axis=0)
        mean = total / sum(len(members) for members in real)
        mean = (mean + mean[:, ::-1]) / 2
        mask = mean[0] > MASK_SHARE * mean[0].max()
        return cls(mask, mean[:, mask].astype(np.float32))

    def rows(self, volumes: NDArray[np.float32], *, flip: bool = False) -> NDArray[np.float32]:
        """Return (N, C * V) in-mask voxels, of mean 0 in each channel."""
        oriented = volumes[:, :, ::-1] if flip else volumes
        rows = np.empty((len(volumes), *self.mean.shape), np.float32)
        for row, volume in enumerate(oriented):
            rows[row] = volume[:, self.mask] - self.mean
        rows -= rows.mean(-1, keepdims=True)
        return rows.reshape(len(rows), -1)


def voxel_distances(real: Sequence[VolumeSet], candidates: Sequence[VolumeSet]) -> FloatArray:
    """Return (P + Q, P) distances ``sqrt(2 - 2 r)`` of residual correlation, mirrored or not.

    ``r`` is the correlation of two brains inside the mean brain after the mean brain of all real
    subjects *but these two* is subtracted. With the two left in, a subject would be a little
    unlike every other for having pulled the mean, and a sample, which pulled nothing, would not.

    Parameters
    ----------
    real : P volumes in some sets, on one grid, all channels are read.
    candidates : Q volumes on the same grid.
    """
    brain = Brain.of(real)
    rows = np.concatenate([brain.rows(members.volumes) for members in (*real, *candidates)])
    num_real = sum(len(members) for members in real)
    plain = (rows @ rows[:num_real].T).astype(np.float64)
    flipped = [
        rows @ brain.rows(members.volumes[start : start + CHUNK], flip=True).T
        for members in real
        for start in range(0, len(members), CHUNK)
    ]
    norm = np.einsum("nv,nv->n", rows, rows, dtype=np.float64)
    r = left_out_correlation(plain, np.concatenate(flipped, axis=1).astype(np.float64), norm)
    return np.sqrt(np.maximum(2 - 2 * r, 0))


def left_out_correlation(plain: FloatArray, flipped: FloatArray, norm: FloatArray) -> FloatArray:
    """Correlate every row with every real subject or its mirror image, their own shares taken out.

    With ``m`` the mirror-symmetric mean of the real subjects other than i and j, this is
    ``(x_i - m)·(x_j - m) / (|x_i - m| |x_j - m|)``, or with the mirrored x_j where that is larger,
    from inner products alone.

    Parameters
    ----------
    plain, flipped : (N, P) inner products of every row with the P real subjects and with their
        mirror images; the first P rows are these subjects.
    norm : (N,) squared norms of the rows.
    """
    num_real = plain.shape[1]
    real = (np.arange(len(plain)) < num_real).astype(np.float64)[:, None]
    both = (plain + flipped) / 2
    total = both.sum(1)
    own = np.zeros(len(plain))
    own[:num_real] = np.diagonal(both)
    own_i, own_j = own[:, None], own[None, :num_real]
    total_i, total_j = total[:, None], total[None, :num_real]
    left = num_real - 1 - real
    i_mean = (total_i - real * own_i - both) / left
    j_mean = (total_j - real * both - own_j) / left
    mean2 = total[:num_real].sum() + real * own_i + own_j
    mean2 = (mean2 - 2 * (real * total_i + total_j - real * both)) / left**2
    norm_i = norm[:, None] - 2 * i_mean + mean2
    norm_j = norm[None, :num_real] - 2 * j_mean + mean2
    product = np.maximum(plain, flipped) - i_mean - j_mean + mean2
    scale = np.sqrt(np.maximum(norm_i, 0) * np.maximum(norm_j, 0))
    flat = scale <= 1e-9 * norm.max()
    return np.clip(np.divide(product, scale, out=np.zeros_like(scale), where=~flat), -1, 1)
