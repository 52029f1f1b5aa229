"""Keep some slices around the middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.crop import windowed
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS
from gyri.views.base import PLANE_AXIS, Plane


@dataclass(frozen=True, kw_only=True)
class CentralSlicesConfig:
    """Which slices are kept.

    Parameters
    ----------
    count : how many.
    plane : of which plane.
    centre_mm : the world's coordinate along the plane's normal that they lie around; None takes
        the middle of the grid, which is the same in all scans once they share a grid.
    """

    count: int = 10
    plane: Plane = "axial"
    centre_mm: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.plane not in PLANE_AXIS:
            raise UsageError(
                f"count is {self.count} and plane {self.plane!r}; expected at least one slice of "
                f"{', '.join(PLANE_AXIS)}."
            )


@STEPS.register("central_slices", CentralSlicesConfig)
def central_slices(scan: PreparedScan, config: CentralSlicesConfig) -> PreparedScan:
    """Keep `count` neighbouring slices; what they do not show is gone.

    Put this step after `intensity`, whose percentiles are then those of the whole brain. A subject
    still is one volume: its slices never part between TRAIN and HOLD.

    Raises
    ------
    DataError
        There are fewer slices, or they show no foreground.
    """
    axis = PLANE_AXIS[config.plane]
    shape = list(scan.shape)
    if config.centre_mm is None:
        middle = (shape[axis] - 1) / 2
    else:
        middle = (config.centre_mm - scan.affine[axis, 3]) / scan.affine[axis, axis]
    start = np.zeros(3, int)
    # Of two equally central choices the lower one; rounding must not decide.
    start[axis] = int(np.ceil(middle - (config.count - 1) / 2 - 0.5 - 1e-6))
    if start[axis] < 0 or start[axis] + config.count > shape[axis]:
        raise DataError(
            f"{config.count} {config.plane} slices from number {start[axis]} on do not lie in a "
            f"scan of {shape[axis]}. Choose fewer, or another centre_mm."
        )
    shape[axis] = config.count
    image, foreground, affine, cut = windowed(scan, start, (shape[0], shape[1], shape[2]), 1.0)
    if not foreground.any():
        raise DataError(
            f"The {config.count} central {config.plane} slices are empty. Choose another centre_mm."
        )
    facts = {
        "plane": config.plane,
        "start": int(start[axis]),
        "count": config.count,
        "foreground_cut": cut,
    }
    return scan.after("central_slices", facts, image=image, foreground=foreground, affine=affine)
