"""Resample to isotropic voxels whose axes are those of the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import UsageError
from gyri.prepare.itk import resampled
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
SAME_SPACING_MM = 1e-3
FOREGROUND = 0.5
REACH_SIGMA = 4.0


@dataclass(frozen=True, kw_only=True)
class ResampleConfig:
    """Isotropic grid.

    Parameters
    ----------
    spacing_mm : distance between voxels along all axes.
    through_mm : a place in the world where a voxel's centre lies, so that the voxels of
        registered scans coincide; None keeps each scan's own centre.
    """

    spacing_mm: float = 4.0
    through_mm: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.spacing_mm <= 16:
            raise UsageError(f"spacing_mm is {self.spacing_mm}; expected 0.1 to 16 mm.")


@STEPS.register("resample", ResampleConfig)
def resample(scan: PreparedScan, config: ResampleConfig) -> PreparedScan:
    """Resample to `spacing_mm`: linear after a Gaussian where it coarsens, labels nearest.

    The Gaussian's width is what the coarse voxel's point spread adds to the fine one's,
    ``sigma = sqrt(d_out^2 - d_in^2) / (2 sqrt(2 ln 2))`` (M. J. Cardoso et al., "Scale factor
    point spread function matching", MICCAI 2015, eq. 5). The new grid covers the old one; a scan
    on a tilted grid, or one whose affine a registration changed, comes out upright by this one
    interpolation. A scan that already lies on such a grid is left as it is.
    """
    spacing = scan.spacing_mm
    shape, affine = covering_grid(scan.affine, scan.shape, config.spacing_mm, config.through_mm)
    upright = np.allclose(scan.affine[:3, :3], np.diag(spacing), atol=SAME_SPACING_MM)
    same = upright and np.allclose(spacing, config.spacing_mm, atol=SAME_SPACING_MM)
    if same and (config.through_mm is None or np.allclose(affine, scan.affine, atol=1e-3)):
        return scan.after("resample", {"spacing_mm": config.spacing_mm, "unchanged": True})
    sigma_mm = np.sqrt(np.maximum(config.spacing_mm**2 - spacing**2, 0)) / FWHM_PER_SIGMA
    smooth = _Resampler(scan, affine, shape, sigma_mm / spacing, bool(upright))
    volumes = [
        resampled(volume, scan.affine, affine, shape, nearest=True)
        if channel.kind == "label"
        else smooth(volume)
        for volume, channel in zip(scan.image, scan.channels)
    ]
    facts = {
        "spacing_mm": config.spacing_mm,
        "from_spacing_mm": np.round(spacing, 4).tolist(),
        "sigma_mm": np.round(sigma_mm, 4).tolist(),
        "upright_before": bool(upright),
    }
    return scan.after(
        "resample",
        facts,
        image=np.stack(volumes),
        affine=affine,
        foreground=np.clip(smooth(scan.foreground), 0, 1),
    )


def covering_grid(
    affine: np.ndarray,
    shape: tuple[int, int, int],
    spacing_mm: float,
    through_mm: tuple[float, float, float] | None = None,
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return shape and affine of the upright grid that covers another.

    It shares the other's centre, or has a voxel's centre at `through_mm`.
    """
    linear = affine[:3, :3]
    extent_mm = np.abs(linear) @ np.array(shape, dtype=float)
    centre = linear @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    counts = np.ceil(extent_mm / spacing_mm - 1e-3).astype(int)
    first = centre - spacing_mm * (counts - 1) / 2
    if through_mm is not None:
        steps = np.floor((first - through_mm) / spacing_mm + 1e-3)
        counts = counts + (first - through_mm - steps * spacing_mm > 1e-3 * spacing_mm)
        first = np.array(through_mm) + steps * spacing_mm
    new = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    new[:3, 3] = first
    return (int(counts[0]), int(counts[1]), int(counts[2])), new


@dataclass(frozen=True)
class _Resampler:
    """Smooth and interpolate; along upright axes both are one small matrix an axis."""

    scan: PreparedScan
    affine: np.ndarray
    shape: tuple[int, int, int]
    sigma_voxels: np.ndarray
    upright: bool

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        old, new = self.scan.affine, self.affine
        if not self.upright:
            smoothing = [_smoothing(n, s) for n, s in zip(volume.shape, self.sigma_voxels)]
            return resampled(_along_axes(volume, smoothing), old, new, self.shape)
        matrices = []
        for axis, (count, sigma) in enumerate(zip(volume.shape, self.sigma_voxels)):
            first = (new[axis, 3] - old[axis, 3]) / old[axis, axis]
            step = new[axis, axis] / old[axis, axis]
            places = first + step * np.arange(self.shape[axis])
            matrices.append(_interpolation(places, count) @ _smoothing(count, sigma))
        return _along_axes(volume, matrices)


def _smoothing(count: int, sigma_voxels: float) -> np.ndarray:
    """Return (count, count) a Gaussian whose rows sum to 1; the border's values go on outside."""
    if sigma_voxels == 0:
        return np.eye(count, dtype=np.float32)
    reach = int(np.ceil(REACH_SIGMA * sigma_voxels))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma_voxels) ** 2)
    columns = np.clip(np.arange(count)[:, None] + offsets, 0, count - 1)
    matrix = np.zeros((count, count))
    np.add.at(matrix, (np.arange(count)[:, None], columns), weights / weights.sum())
    return matrix.astype(np.float32)


def _interpolation(places: np.ndarray, count: int) -> np.ndarray:
    """Return (len(places), count) linear interpolation, 0 beyond the outer voxels' far faces."""
    inside = (places >= -0.5) & (places <= count - 0.5)
    clipped = np.clip(places, 0, count - 1)
    below = np.minimum(np.floor(clipped).astype(int), max(count - 2, 0))
    share = clipped - below
    matrix = np.zeros((len(places), count))
    rows = np.arange(len(places))
    np.add.at(matrix, (rows, below), (1 - share) * inside)
    np.add.at(matrix, (rows, np.minimum(below + 1, count - 1)), share * inside)
    return matrix.astype(np.float32)


def _along_axes(volume: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Apply one matrix along each axis of (I, J, K)."""
    first, second, third = matrices
    values = volume.astype(np.float32) @ third.T
    values = second @ values
    rows = values.reshape(len(values), -1)
    return np.ascontiguousarray((first @ rows).reshape(len(first), *values.shape[1:]))
