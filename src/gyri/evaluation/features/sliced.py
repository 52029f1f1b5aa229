"""Random projections of coarse volumes: where intensity lies, without any model of anatomy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features import FeatureSet, FloatArray
from gyri.evaluation.segment import Segmented
from gyri.registry import FEATURES
from gyri.runtime.seeding import numpy_rng

Images = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

COARSE = 32
"""Most cells along each axis of the coarse grid."""
NUM_DIRECTIONS = 1024
BLOCK = 64
"""Most directions that are orthogonal to each other."""
SUPPORT_SHARE = 0.05
"""The brain is where TRAIN's mean exceeds this share of its largest value."""


def brain_support(images: Images) -> BoolArray:
    """Return (I, J, K), where the mean of (N, I, J, K) images exceeds 5 % of its largest value."""
    mean = images.mean(0)
    return np.asarray(mean > SUPPORT_SHARE * mean.max())


def box_weights(size: int, cells: int) -> Images:
    """Return (cells, size) weights that average `size` voxels over equal cells.

    A voxel that lies in two cells counts in each with the share of it that lies there. Rows sum
    to 1.
    """
    edges = np.linspace(0, size, cells + 1)
    voxels = np.arange(size)
    low = np.maximum(edges[:-1, None], voxels[None, :])
    high = np.minimum(edges[1:, None], voxels[None, :] + 1)
    overlap = np.clip(high - low, 0, None)
    return np.asarray(overlap / overlap.sum(1, keepdims=True), np.float32)


def masked_downsample(images: Images, mask: BoolArray) -> Images:
    """Return (N, 32, 32, 32) averages of (N, I, J, K) images over cells, zeros outside `mask`.

    Every cell is the mean over its box, so that sums and shifts of images stay sums and shifts.
    An axis of fewer than 32 voxels stays as it is: nothing is made larger. The same for a volume
    alone and in any batch.

    Parameters
    ----------
    mask : (I, J, K), the same for all sets that are compared.
    """
    along_i, along_j, along_k = (box_weights(size, min(size, COARSE)) for size in mask.shape)
    coarse = np.empty((len(images), len(along_i), len(along_j), len(along_k)), np.float32)
    for row, image in enumerate(images):
        inside = np.where(mask, image, np.float32(0)).astype(np.float32, copy=False)
        cells = along_j @ (inside @ along_k.T)
        coarse[row] = (along_i @ cells.reshape(len(cells), -1)).reshape(coarse.shape[1:])
    return coarse


def coarse_rows(images: Images, mask: BoolArray) -> Images:
    """Return (N, m): `masked_downsample` at the m cells that `mask` touches."""
    touched = masked_downsample(mask[None].astype(np.float32), mask)[0] > 0
    return np.asarray(masked_downsample(images, mask)[:, touched])


def orthonormal_directions(dimensions: int, count: int, rng: np.random.Generator) -> FloatArray:
    """Return (count, d) unit vectors, uniform on the sphere, orthogonal within blocks.

    A block holds min(d, 64) of them. Over blocks of d the mean squared projection of any vector
    v is exactly ``|v|^2 / d``.
    """
    from scipy import linalg

    block = min(dimensions, BLOCK)
    found = []
    for start in range(0, count, block):
        drawn = rng.standard_normal((block, dimensions)).T
        q, r = linalg.qr(drawn, mode="economic", overwrite_a=True, check_finite=False)
        signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)  # makes the basis uniform (Haar)
        found.append((q * signs).T[: count - start])
    return np.concatenate(found)


@FEATURES.register("sw-v1")
class Sliced(FeatureSet):
    """Projections of coarse masked volumes (32^3 cells) on 1,024 seeded directions.

    Sees where intensity lies in space, bias fields, rotation and missing variety. Blind to what
    is smaller than a cell: texture, noise and fine blur.
    """

    name = "sw-v1"

    def __init__(self) -> None:
        super().__init__()
        self._directions: Images | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """One name a direction."""
        return tuple(f"direction_{index:04d}" for index in range(NUM_DIRECTIONS))

    def fit(self, train: Segmented) -> None:
        """Find the cells of the brain and draw the directions."""
        mask = brain_support(np.nan_to_num(train.image))
        cells = coarse_rows(mask[None].astype(np.float32), mask).shape[1]
        self.state = {"mask": mask.astype(np.float64)}
        rng = numpy_rng("sw-v1", "directions")
        drawn = orthonormal_directions(cells, NUM_DIRECTIONS, rng)
        self._directions = drawn.astype(np.float32)

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, 1024) projections, in units of intensity; NaN on another grid than TRAIN's."""
        assert self._directions is not None
        mask = self.state["mask"] > 0
        if segmented.image.shape[1:] != mask.shape:
            return np.full((len(segmented), NUM_DIRECTIONS), np.nan)
        rows = coarse_rows(np.nan_to_num(segmented.image), mask)
        # One product a volume: in a batch the last bits would depend on its size.
        return np.array([self._directions @ row for row in rows], np.float64)
