"""Resample to isotropic voxels whose axes are those of the world."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from gyri.errors import UsageError
from gyri.prepare.itk import resampled
from gyri.prepare.scan import PreparedScan, bounding_box
from gyri.registry import STEPS
from gyri.types import FWHM_PER_SIGMA

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
    image, foreground, facts = onto(scan, shape, affine)
    facts = {"spacing_mm": config.spacing_mm, **facts}
    return scan.after("resample", facts, image=image, affine=affine, foreground=foreground)


def onto(
    scan: PreparedScan, shape: tuple[int, int, int], affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Resample a scan onto another upright grid as `resample` does; what is outside is 0.

    Parameters
    ----------
    shape, affine : the grid; off its diagonal the affine's linear part is 0.

    Returns
    -------
    image : (C, *shape).
    foreground : (*shape).
    facts : spacing before and width of the Gaussian, for the history.
    """
    spacing = scan.spacing_mm
    upright = np.allclose(scan.affine[:3, :3], np.diag(spacing), atol=SAME_SPACING_MM)
    sigma_mm = np.sqrt(np.maximum(np.diag(affine)[:3] ** 2 - spacing**2, 0)) / FWHM_PER_SIGMA
    # Most of a stripped scan is 0 and stays 0: only the rest is worked on.
    part = _without_margins(scan, np.ceil(REACH_SIGMA * sigma_mm / spacing).astype(int) + 1)
    window = _covered(part, shape, affine)
    image = np.zeros((len(scan.image), *shape), np.float32)
    inside = np.zeros(shape, np.float32)
    if all(side.start < side.stop for side in window):
        start, size = [side.start for side in window], [side.stop - side.start for side in window]
        target = affine.copy()
        target[:3, 3] += affine[:3, :3] @ start
        i, j, k = size
        smooth = _Resampler(part, target, (i, j, k), sigma_mm / spacing, bool(upright))
        for index, (volume, channel) in enumerate(zip(part.image, part.channels)):
            image[(index, *window)] = (
                resampled(volume, part.affine, target, (i, j, k), nearest=True)
                if channel.kind == "label"
                else smooth(volume)
            )
        inside[window] = np.clip(smooth(part.foreground), 0, 1)
    facts = {
        "from_spacing_mm": np.round(spacing, 4).tolist(),
        "sigma_mm": np.round(sigma_mm, 4).tolist(),
        "upright_before": bool(upright),
    }
    return image, inside, facts


def _without_margins(scan: PreparedScan, reach: np.ndarray) -> PreparedScan:
    """Cut off what is 0 in all channels and the foreground, but for `reach` (3,) voxels of it."""
    used = scan.foreground != 0
    for volume in scan.image:
        used |= volume != 0
    if not used.any():
        return scan
    box = bounding_box(used)
    low = np.maximum(box[:, 0] - reach, 0)
    high = np.minimum(box[:, 1] + reach + 1, scan.shape)
    kept = tuple(slice(a, b) for a, b in zip(low, high))
    affine = scan.affine.copy()
    affine[:3, 3] += scan.affine[:3, :3] @ low
    return replace(
        scan,
        image=scan.image[(slice(None), *kept)],
        foreground=scan.foreground[kept],
        affine=affine,
    )


def _covered(
    scan: PreparedScan, shape: tuple[int, int, int], affine: np.ndarray
) -> tuple[slice, slice, slice]:
    """Return the part of a grid whose voxels can lie in a scan."""
    corners = np.array(list(product(*((-0.5, n - 0.5) for n in scan.shape))))
    world = corners @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    places = np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T)
    low = np.clip(np.floor(places.min(axis=1)).astype(int), 0, shape)
    high = np.clip(np.ceil(places.max(axis=1)).astype(int) + 1, 0, shape)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high))
    return i, j, k


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
