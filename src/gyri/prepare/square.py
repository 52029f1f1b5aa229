"""Make slices square."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gyri.errors import UsageError
from gyri.prepare.crop import windowed
from gyri.prepare.resample import onto
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS
from gyri.views.base import PLANE_AXIS

SquarePlane = Literal["sagittal", "coronal", "axial", "all"]


@dataclass(frozen=True, kw_only=True)
class SquareConfig:
    """A square and how a slice comes to fill it.

    Parameters
    ----------
    size : voxels along each side.
    plane : whose slices become square; ``"all"`` makes a cube, so that the views of every plane
        see slices of one size.
    method : ``"pad"`` adds 0 or cuts off on both sides alike and leaves voxels what they are;
        ``"resize"`` fits the longer side and pads the shorter, so that nothing is stretched.
    max_cut : largest share of the foreground that may be cut off.
    """

    size: int = 256
    plane: SquarePlane = "axial"
    method: Literal["pad", "resize"] = "pad"
    max_cut: float = 0.005

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"size is {self.size}; expected at least one voxel.")
        if self.plane not in (*PLANE_AXIS, "all") or self.method not in ("pad", "resize"):
            raise UsageError(
                f"plane is {self.plane!r} and method {self.method!r}; expected one of "
                f"{', '.join(PLANE_AXIS)}, all and one of pad, resize."
            )


@STEPS.register("square", SquareConfig)
def square(scan: PreparedScan, config: SquareConfig) -> PreparedScan:
    """Pad or resize slices to `size` x `size` around the grid's middle; labels stay labels.

    Slices are not taken apart here: a prepared cohort holds volumes, and the view of a recipe
    (``slice`` with its plane) decides what a model sees of them.

    Raises
    ------
    DataError
        More than `max_cut` of the foreground lies outside the square.
    """
    axes = [axis for axis in range(3) if axis != PLANE_AXIS.get(config.plane)]
    if config.method == "resize":
        scan = _resized(scan, axes, config.size)
    shape = [config.size if axis in axes else n for axis, n in enumerate(scan.shape)]
    start = -((np.array(shape) - scan.shape) // 2)
    image, foreground, affine, cut = windowed(
        scan, start, (shape[0], shape[1], shape[2]), config.max_cut
    )
    facts = {
        "size": config.size,
        "plane": config.plane,
        "method": config.method,
        "foreground_cut": cut,
    }
    return scan.after("square", facts, image=image, foreground=foreground, affine=affine)


def _resized(scan: PreparedScan, axes: list[int], size: int) -> PreparedScan:
    """Resample so that the longest of `axes` has `size` voxels, and all of them its spacing."""
    extent_mm = scan.spacing_mm * scan.shape
    spacing_mm = scan.spacing_mm.copy()
    spacing_mm[axes] = extent_mm[axes].max() / size
    counts = np.maximum(np.rint(extent_mm / spacing_mm).astype(int), 1)
    centre_mm = scan.affine[:3, :3] @ ((np.array(scan.shape) - 1) / 2) + scan.affine[:3, 3]
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = centre_mm - spacing_mm * (counts - 1) / 2
    i, j, k = counts.tolist()
    image, foreground, _ = onto(scan, (i, j, k), affine)
    return replace(scan, image=image, foreground=foreground, affine=affine)
