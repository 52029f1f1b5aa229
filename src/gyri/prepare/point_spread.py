"""Blur a volume to what coarser voxels would have seen."""

from __future__ import annotations

import numpy as np

from gyri.types import FWHM_PER_SIGMA


def as_seen_by(
    volume: np.ndarray, affine: np.ndarray, spacing_mm: float | np.ndarray
) -> np.ndarray:
    """Return (I, J, K) with the point spread of voxels of `spacing_mm`; finer ones change none.

    The Gaussian is that of `resample`, for grids that are tilted or sheared in the world.

    Parameters
    ----------
    volume, affine : values and their (4, 4) voxel-to-world matrix.
    spacing_mm : of the voxels to come, one number or one along each of the volume's axes.
    """
    from scipy.ndimage import gaussian_filter

    own_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    sigma_mm = np.sqrt(np.maximum(np.square(spacing_mm) - own_mm**2, 0)) / FWHM_PER_SIGMA
    return np.asarray(gaussian_filter(volume, sigma_mm / own_mm, mode="nearest"))
