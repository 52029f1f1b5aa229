"""Resample to isotropic voxels whose axes are those of the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gyri.errors import UsageError
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
SAME_SPACING_MM = 1e-3
FOREGROUND = 0.5


@dataclass(frozen=True, kw_only=True)
class ResampleConfig:
    """Isotropic grid.

    Parameters
    ----------
    spacing_mm : distance between voxels along all axes.
    """

    spacing_mm: float = 4.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.spacing_mm <= 16:
            raise UsageError(f"spacing_mm is {self.spacing_mm}; expected 0.1 to 16 mm.")


@STEPS.register("resample", ResampleConfig)
def resample(scan: PreparedScan, config: ResampleConfig) -> PreparedScan:
    """Resample to `spacing_mm`: linear after a Gaussian where it coarsens, labels nearest.

    The Gaussian's width is what the coarse voxel's point spread adds to the fine one's,
    ``sigma = sqrt(d_out^2 - d_in^2) / (2 sqrt(2 ln 2))`` (M. J. Cardoso et al., "Scale factor
    point spread function matching", MICCAI 2015, eq. 5). The new grid shares the old one's centre
    and covers it; a scan on a tilted grid comes out upright. A scan that already lies on such a
    grid is left as it is.
    """
    spacing = scan.spacing_mm
    upright = np.allclose(scan.affine[:3, :3], np.diag(spacing), atol=SAME_SPACING_MM)
    if upright and np.allclose(spacing, config.spacing_mm, atol=SAME_SPACING_MM):
        return scan.after("resample", {"spacing_mm": config.spacing_mm, "unchanged": True})
    shape, affine = covering_grid(scan.affine, scan.shape, config.spacing_mm)
    sigma_mm = np.sqrt(np.maximum(config.spacing_mm**2 - spacing**2, 0)) / FWHM_PER_SIGMA
    volumes = [
        _resampled(volume, scan.affine, affine, shape, None if label else sigma_mm)
        for volume, label in zip(scan.image, (c.kind == "label" for c in scan.channels))
    ]
    facts = {
        "spacing_mm": config.spacing_mm,
        "from_spacing_mm": np.round(spacing, 4).tolist(),
        "sigma_mm": np.round(sigma_mm, 4).tolist(),
        "upright_before": bool(upright),
    }
    coverage = _resampled(scan.foreground, scan.affine, affine, shape, sigma_mm)
    return scan.after(
        "resample",
        facts,
        image=np.stack(volumes),
        affine=affine,
        foreground=np.clip(coverage, 0, 1),
    )


def covering_grid(
    affine: np.ndarray, shape: tuple[int, int, int], spacing_mm: float
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return shape and affine of the upright grid with the same centre that covers another."""
    linear = affine[:3, :3]
    extent_mm = np.abs(linear) @ np.array(shape, dtype=float)
    counts = np.ceil(extent_mm / spacing_mm - 1e-3).astype(int)
    centre = linear @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    new = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    new[:3, 3] = centre - spacing_mm * (counts - 1) / 2
    return (int(counts[0]), int(counts[1]), int(counts[2])), new


def _resampled(
    volume: np.ndarray,
    affine: np.ndarray,
    new_affine: np.ndarray,
    shape: tuple[int, int, int],
    sigma_mm: np.ndarray | None,
) -> np.ndarray:
    """Resample (I, J, K) onto another grid; nearest neighbour where `sigma_mm` is None."""
    import SimpleITK as sitk

    image = _to_itk(volume, affine)
    if sigma_mm is not None and sigma_mm.max() > 0:
        image = sitk.DiscreteGaussian(image, variance=(sigma_mm**2).tolist(), maximumKernelWidth=64)
    interpolator = sitk.sitkNearestNeighbor if sigma_mm is None else sitk.sitkLinear
    spacing = np.sqrt((new_affine[:3, :3] ** 2).sum(axis=0))
    resampled = sitk.Resample(
        image,
        [int(n) for n in shape],
        sitk.Transform(3, sitk.sitkIdentity),
        interpolator,
        new_affine[:3, 3].tolist(),
        spacing.tolist(),
        (new_affine[:3, :3] / spacing).ravel().tolist(),
        0.0,
    )
    return np.ascontiguousarray(sitk.GetArrayFromImage(resampled).transpose(2, 1, 0))


def _to_itk(volume: np.ndarray, affine: np.ndarray) -> Any:
    # ITK's world is LPS; both grids are given in RAS and only their relation matters here.
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(
        np.ascontiguousarray(volume.astype(np.float32).transpose(2, 1, 0))
    )
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    # Headers round their cosines, and ITK refuses a direction that is not orthonormal.
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((left @ right).ravel().tolist())
    return image
