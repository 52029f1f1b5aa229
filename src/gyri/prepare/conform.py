"""Bring scans onto FreeSurfer's grid: 256 x 256 x 256 voxels of 1 mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.resample import onto
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS


@dataclass(frozen=True, kw_only=True)
class ConformConfig:
    """The grid.

    Parameters
    ----------
    size : voxels along each axis.
    spacing_mm : size of a voxel.
    centre_mm : the world's point in the grid's middle, so that registered scans stay aligned;
        None takes the middle of each scan's field of view, which becomes the world's origin.
    max_cut : largest share of the foreground that may lie outside the grid.
    """

    size: int = 256
    spacing_mm: float = 1.0
    centre_mm: tuple[float, float, float] | None = None
    max_cut: float = 0.01

    def __post_init__(self) -> None:
        if self.size < 1 or not 0.1 <= self.spacing_mm <= 16:
            raise UsageError(
                f"size is {self.size} and spacing_mm {self.spacing_mm}; expected at least one "
                "voxel of 0.1 to 16 mm."
            )


@STEPS.register("conform", ConformConfig)
def conform(scan: PreparedScan, config: ConformConfig) -> PreparedScan:
    """Resample onto an upright cube around the field of view, as ``mri_convert --conform`` does.

    The grid is FreeSurfer's with its axes in RAS+ order instead of LIA: voxel ``(127, 128, 127)``
    lies in the middle, so that the origin is that of FreeSurfer's surface coordinates. Intensities
    are left to the step `intensity`; where voxels become coarser, they are smoothed as in
    `resample`. Tilted scans come out upright.

    Raises
    ------
    DataError
        More than `max_cut` of the foreground lies outside the cube.

    Notes
    -----
    B. Fischl, "FreeSurfer", NeuroImage 62, 774 (2012).
    """
    own = config.centre_mm is None
    middle = scan.affine @ [*(np.array(scan.shape) / 2), 1.0]
    centre_mm = middle[:3] if own else np.array(config.centre_mm)
    index = np.array([(config.size - 1) // 2, config.size // 2, (config.size - 1) // 2])
    affine = np.diag([config.spacing_mm] * 3 + [1.0])
    affine[:3, 3] = centre_mm - config.spacing_mm * index
    image, foreground, facts = onto(scan, (config.size,) * 3, affine)
    voxel_ml = config.spacing_mm**3 / 1000
    cut = 1 - float(foreground.sum(dtype=np.float64)) * voxel_ml / _foreground_ml(scan)
    if cut > config.max_cut:
        raise DataError(
            f"{cut:.2%} of the foreground lies outside {config.size} voxels of "
            f"{config.spacing_mm:g} mm; at most {config.max_cut:.2%} may be cut. Strip the neck "
            "first, or choose a larger size."
        )
    moved_mm = -centre_mm if own else np.zeros(3)
    affine[:3, 3] += moved_mm
    facts = {
        "size": config.size,
        "spacing_mm": config.spacing_mm,
        **facts,
        "foreground_cut": round(max(cut, 0.0), 6),
        "moved_mm": np.round(moved_mm, 4).tolist(),
    }
    return scan.after("conform", facts, image=image, foreground=foreground, affine=affine)


def _foreground_ml(scan: PreparedScan) -> float:
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    return float(scan.foreground.sum(dtype=np.float64) * voxel_ml)
