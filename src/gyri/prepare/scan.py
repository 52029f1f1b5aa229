"""What a preparation step reads and returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gyri.errors import DataError
from gyri.types import Channel

BORDER_BACKGROUND = 0.9
MIN_FOREGROUND = 0.005
MAX_BRAIN_ML = 3000.0
"""Stripped scans hold up to 2300 ml (in MNI space), heads on a background of 0 at least 4300."""


@dataclass(frozen=True)
class PreparedScan:
    """One session's volumes on their way through the steps.

    Parameters
    ----------
    image : (C, I, J, K) float32; label channels hold integers.
    channels : what each of the C channels is.
    affine : (4, 4) voxel to world, millimetres.
    foreground : (I, J, K) float32, share of each voxel that is head or brain, in [0, 1].
    history : what each step did, in order.
    """

    image: np.ndarray
    channels: tuple[Channel, ...]
    affine: np.ndarray
    foreground: np.ndarray
    history: tuple[dict[str, Any], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along I, J, K."""
        return self.image.shape[1], self.image.shape[2], self.image.shape[3]

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) distance between voxels along I, J, K in millimetres."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    def after(self, step: str, facts: dict[str, Any], **changes: Any) -> PreparedScan:
        """Return the scan with `changes` and one more entry in its history."""
        return replace(self, history=(*self.history, {"step": step, **facts}), **changes)


def foreground(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the mask of what is not background.

    In a stripped scan every voxel that is not 0 counts. Otherwise it is a whole head in air:
    Otsu's threshold, the largest component, holes filled.

    Parameters
    ----------
    volume, affine : (I, J, K) values and (4, 4) voxel to world.

    Raises
    ------
    DataError
        Less than 0.5 % of the voxels are foreground.
    """
    mask = volume != 0 if is_stripped(volume, affine) else _head(volume)
    if mask.mean() < MIN_FOREGROUND:
        raise DataError(
            f"{mask.mean():.2%} of the voxels are foreground, expected at least "
            f"{MIN_FOREGROUND:.1%}. Look at the scan; it may be empty."
        )
    return mask


def is_stripped(volume: np.ndarray, affine: np.ndarray) -> bool:
    """Say whether a scan shows a brain without its head.

    It does where at least 90 % of the outer faces of (I, J, K) are exactly 0 and what is not 0
    would fit into a skull; archives set the air around some whole heads to 0 as well.
    """
    # Views: np.take would copy the whole of a volume in Fortran order, as files have it.
    faces = [np.moveaxis(volume, axis, 0)[side] for axis in range(3) for side in (0, -1)]
    empty = np.mean(np.concatenate([face.ravel() for face in faces]) == 0)
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    support_ml = np.count_nonzero(volume) * voxel_ml
    return bool(empty >= BORDER_BACKGROUND and support_ml <= MAX_BRAIN_ML)


def _head(volume: np.ndarray) -> np.ndarray:
    import SimpleITK as sitk
    from scipy.ndimage import binary_fill_holes

    image = sitk.GetImageFromArray(volume.astype(np.float32))
    components = sitk.ConnectedComponent(sitk.OtsuThreshold(image, 0, 1))
    largest = sitk.GetArrayFromImage(sitk.RelabelComponent(components)) == 1
    return np.asarray(binary_fill_holes(largest), dtype=bool)


def bounding_box(mask: np.ndarray) -> np.ndarray:
    """Return (3, 2): first and last index of the True voxels along I, J, K."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        present = np.flatnonzero(mask.any(axis=others))
        box.append((present[0], present[-1]))
    return np.array(box)


def box_centre_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return (3,) the world position of the middle of the mask's bounding box."""
    return affine[:3, :3] @ bounding_box(mask).mean(axis=1) + affine[:3, 3]
