"""Between arrays on a grid and SimpleITK images."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_itk(volume: np.ndarray, affine: np.ndarray) -> Any:
    """Return (I, J, K) values as a float32 SimpleITK image at the same place in the world.

    ITK's own world is LPS; here it is RAS throughout, and only relations between images matter.
    ITK refuses a direction that is not orthonormal: a grid with shear is not for this function.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(
        np.ascontiguousarray(volume.astype(np.float32).transpose(2, 1, 0))
    )
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    # Headers round their cosines; the nearest orthonormal matrix is what they mean.
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((left @ right).ravel().tolist())
    return image


def to_array(image: Any) -> np.ndarray:
    """Return a SimpleITK image's voxels as (I, J, K)."""
    import SimpleITK as sitk

    return np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0))


def affine_transform(matrix: np.ndarray) -> Any:
    """Return a (4, 4) matrix as a SimpleITK transform of points."""
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def matrix_of(transform: Any) -> np.ndarray:
    """Return a linear SimpleITK transform of points as a (4, 4) matrix."""
    corners = np.vstack([np.zeros(3), np.eye(3)])
    there = np.array([transform.TransformPoint(corner.tolist()) for corner in corners])
    matrix = np.eye(4)
    matrix[:3, :3] = (there[1:] - there[0]).T
    matrix[:3, 3] = there[0]
    return matrix


def resampled(
    volume: np.ndarray,
    affine: np.ndarray,
    new_affine: np.ndarray,
    shape: tuple[int, int, int],
    *,
    nearest: bool = False,
) -> np.ndarray:
    """Interpolate (I, J, K) at the voxels of another grid, 0 outside; both may have shear.

    Parameters
    ----------
    volume, affine : values and their (4, 4) voxel-to-world matrix.
    new_affine, shape : the grid wanted.
    nearest : take the nearest voxel (labels) instead of interpolating linearly.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(
        np.ascontiguousarray(volume.astype(np.float32).transpose(2, 1, 0))
    )
    voxel_to_voxel = affine_transform(np.linalg.solve(affine, new_affine))
    interpolator = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    size = [int(n) for n in shape]
    return to_array(
        sitk.Resample(
            image, size, voxel_to_voxel, interpolator,
            [0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist(), 0.0,
        )
    )  # fmt: skip
