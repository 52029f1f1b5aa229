"""Crop or pad to a shape around the brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan, box_centre_mm
from gyri.registry import STEPS


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """A window of voxels.

    Parameters
    ----------
    shape : voxels along I, J, K.
    centre_mm : the window's centre in the world, so that registered scans stay aligned; None
        centres each scan on its own brain, whose middle becomes the world's origin.
    max_cut : largest share of the foreground that may lie outside the window; a scan that
        loses more is refused. What is cut is recorded.
    """

    shape: tuple[int, int, int] = (40, 48, 40)
    centre_mm: tuple[float, float, float] | None = None
    max_cut: float = 0.005

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or any(n < 1 for n in self.shape):
            raise UsageError(f"shape is {self.shape}; expected three positive numbers of voxels.")


@STEPS.register("crop", CropConfig)
def crop(scan: PreparedScan, config: CropConfig) -> PreparedScan:
    """Cut or pad with 0 to `shape` around the brain, by whole voxels.

    Raises
    ------
    DataError
        More than `max_cut` of the foreground does not fit into the window.
    """
    mask = scan.foreground >= FOREGROUND
    if not mask.any():
        raise DataError("No voxel is foreground. Look at the scan; it may be empty.")
    own = config.centre_mm is None
    centre_mm = box_centre_mm(mask, scan.affine) if own else np.array(config.centre_mm)
    centre = np.linalg.solve(scan.affine[:3, :3], centre_mm - scan.affine[:3, 3])
    start = np.floor(centre - (np.array(config.shape) - 1) / 2 + 0.5).astype(int)
    image, foreground, affine, cut = windowed(scan, start, config.shape, config.max_cut)
    moved_mm = [0.0, 0.0, 0.0]
    if own:
        centred = -affine[:3, :3] @ ((np.array(config.shape) - 1) / 2)
        moved_mm = (centred - affine[:3, 3]).tolist()
        affine[:3, 3] = centred
    facts = {
        "start": start.tolist(),
        "shape": list(config.shape),
        "foreground_cut": cut,
        "moved_mm": np.round(moved_mm, 4).tolist(),
    }
    return scan.after("crop", facts, image=image, foreground=foreground, affine=affine)


def windowed(
    scan: PreparedScan, start: np.ndarray, shape: tuple[int, int, int], max_cut: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Cut or pad with 0 to the window of `shape` whose first voxel is `start` (3,).

    Returns
    -------
    image, foreground, affine : of the window; every voxel stays where it is in the world.
    cut : share of the foreground that lies outside.

    Raises
    ------
    DataError
        `cut` is more than `max_cut`.
    """
    mask = scan.foreground >= FOREGROUND
    cut = 1 - _window(mask, start, shape).sum() / max(mask.sum(), 1)
    if cut > max_cut:
        extent = (np.argwhere(mask).max(axis=0) - np.argwhere(mask).min(axis=0) + 1).tolist()
        raise DataError(
            f"{cut:.2%} of the foreground ({extent} voxels) does not fit into the window of "
            f"{list(shape)}; at most {max_cut:.2%} may be cut. Prepare with a "
            "larger shape or spacing, or strip the neck first."
        )
    affine = scan.affine.copy()
    affine[:3, 3] += scan.affine[:3, :3] @ start
    image = np.stack([_window(volume, start, shape) for volume in scan.image])
    return image, _window(scan.foreground, start, shape), affine, round(float(cut), 6)


def _window(volume: np.ndarray, start: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return ``volume[start : start + shape]`` with 0 where that lies outside."""
    window = np.zeros(shape, dtype=volume.dtype)
    low = np.maximum(start, 0)
    high = np.minimum(start + np.array(shape), volume.shape)
    if (low < high).all():
        source = tuple(slice(a, b) for a, b in zip(low, high))
        target = tuple(slice(a, b) for a, b in zip(low - start, high - start))
        window[target] = volume[source]
    return window
