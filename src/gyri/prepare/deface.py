"""Take the face out of a whole head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan, foreground
from gyri.registry import STEPS


@dataclass(frozen=True, kw_only=True)
class DefaceConfig:
    """What counts as face.

    Parameters
    ----------
    margin_mm : kept around the brain.
    """

    margin_mm: float = 8.0

    def __post_init__(self) -> None:
        if self.margin_mm < 0:
            raise UsageError(f"margin_mm is {self.margin_mm}; expected 0 mm or more.")


@STEPS.register("deface", DefaceConfig)
def deface(scan: PreparedScan, config: DefaceConfig) -> PreparedScan:
    """Set what lies before and below the brain to 0.

    Everything below and before the plane through the front pole of the brain and its lowest
    point, and everything before the brain, is removed unless it is within `margin_mm` of it. Put
    `reorient` and ``brain_mask`` with ``apply=False`` before this step; the foreground becomes
    the head that is left.

    Raises
    ------
    DataError
        The brain is not marked, or axes are not RAS+.
    """
    from scipy.ndimage import distance_transform_edt

    if not any(entry["step"] == "brain_mask" for entry in scan.history):
        raise DataError("The brain is not marked. Put brain_mask with apply=False before deface.")
    brain = scan.foreground >= FOREGROUND
    near = distance_transform_edt(~brain, sampling=scan.spacing_mm) <= config.margin_mm
    face = _before_and_below(brain, scan.affine, config.margin_mm) & ~near
    image = np.where(face, 0, scan.image).astype(np.float32)
    index = next(i for i, channel in enumerate(scan.channels) if channel.kind != "label")
    left = foreground(image[index], scan.affine).astype(np.float32)
    facts = {
        "margin_mm": config.margin_mm,
        "removed_ml": round(float(face.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000), 1),
    }
    return scan.after("deface", facts, image=image, foreground=left)


def _before_and_below(brain: np.ndarray, affine: np.ndarray, margin_mm: float) -> np.ndarray:
    """Return (I, J, K) bool: before the brain, or beyond the plane below its front half."""
    world = affine[:3, :3] @ np.argwhere(brain).T + affine[:3, 3:]
    lowest = world[:, world[2].argmin()]
    front = world[:, world[1].argmax()]
    along = (front - lowest)[1:]
    # In the sagittal plane, (dz, -dy) is normal to the line and points forwards and down.
    normal = np.array([along[1], -along[0]]) / np.linalg.norm(along)
    index = np.indices(brain.shape).reshape(3, -1)
    y, z = (affine[1:3, :3] @ index + affine[1:3, 3:]).reshape(2, *brain.shape)
    below = normal[0] * (y - lowest[1]) + normal[1] * (z - lowest[2]) > margin_mm
    before = (y > front[1] + margin_mm) & (z < front[2] + margin_mm)
    return np.asarray(below | before, dtype=bool)
