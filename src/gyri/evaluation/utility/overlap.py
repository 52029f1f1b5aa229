"""Overlap of two segmentations, structure by structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def dice(found: BoolArray, truth: BoolArray) -> float:
    """Return 2 |A and B| / (|A| + |B|): 1 is best, 0 where one is missing, NaN where both are."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else float("nan")


def hausdorff95(found: BoolArray, truth: BoolArray, spacing_mm: tuple[float, ...]) -> float:
    """Return the larger of the two 95th percentiles of surface distances, in millimetres.

    0 is best. A structure that one side misses is as far away as the grid is wide; NaN where both
    miss it. Surfaces are voxels with a 6-neighbour outside.
    """
    if not found.any() and not truth.any():
        return float("nan")
    if not found.any() or not truth.any():
        return float(np.linalg.norm(np.multiply(found.shape, spacing_mm)))
    from scipy import ndimage

    box = ndimage.find_objects((found | truth).astype(np.int8))[0]
    found, truth = np.pad(found[box], 1), np.pad(truth[box], 1)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (found, truth)]
    distances = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
    there = np.percentile(distances[1][edges[0]], 95)
    back = np.percentile(distances[0][edges[1]], 95)
    return float(max(there, back))


def compare_structures(
    found: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    num_structures: int,
    spacing_mm: tuple[float, float, float],
) -> dict[str, FloatArray]:
    """Return (N, S) ``dice``, ``hd95_mm`` and absolute ``volume_error_ml`` of label maps.

    Parameters
    ----------
    found, truth : (N, I, J, K), structures 1 .. S, 0 background.
    """
    shape = (len(truth), num_structures)
    result = {name: np.empty(shape) for name in ("dice", "hd95_mm", "volume_error_ml")}
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    for row, structure in np.ndindex(*shape):
        a, b = found[row] == structure + 1, truth[row] == structure + 1
        result["dice"][row, structure] = dice(a, b)
        result["hd95_mm"][row, structure] = hausdorff95(a, b, spacing_mm)
        result["volume_error_ml"][row, structure] = abs(int(a.sum()) - int(b.sum())) * voxel_ml
    return result
