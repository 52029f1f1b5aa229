"""Bring all channels of one session together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from gyri.errors import DataError, UsageError, nearest
from gyri.prepare.align import RIM_MM, WORK_MM
from gyri.prepare.itk import matrix_of, resampled
from gyri.prepare.mutual_information import Match, Pair, averaged_to, capped, mask_image
from gyri.prepare.point_spread import as_seen_by
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan, bounding_box, foreground
from gyri.prepare.survey import SessionScan, own_grids, same_grid
from gyri.registry import STEPS

BEFORE = ("read", "reorient")
"""Steps that leave each channel's place in the world and its voxels' values as they are."""

COARSE_SIGMA_MM = 3.0
COARSE_SHRINK = 3


@dataclass(frozen=True, kw_only=True)
class CoregisterConfig:
    """Who moves to whom.

    Parameters
    ----------
    reference : intensity channel on whose grid all come to lie; None is the first.
    labels_with : intensity channel that the label channels were drawn on, and with which they
        move; None is the reference.
    tolerance_mm : a channel that is no further off than this, anywhere in the foreground's box, is
        left where its header puts it: registration errs by half a millimetre itself.
    """

    reference: str | None = None
    labels_with: str | None = None
    tolerance_mm: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_mm <= 10:
            raise UsageError(f"tolerance_mm is {self.tolerance_mm}; expected 0 to 10 mm.")


@STEPS.register("coregister", CoregisterConfig)
def coregister(scan: PreparedScan, config: CoregisterConfig) -> PreparedScan:
    """Bring all channels onto one grid by rigid registration; labels move with a named channel.

    Put it after `reorient` and before all else. Channels may come on grids of their own. One that
    is aligned and on the grid keeps its voxels as they are; the others are interpolated once,
    linear for intensities and nearest for labels, and are 0 where they were not imaged.

    Raises
    ------
    DataError
        A named channel is missing, or a step that changes places or values came before.

    Notes
    -----
    D. Mattes et al., "PET-CT image registration in the chest using free-form deformations",
    IEEE TMI 22, 120 (2003).
    """
    if late := [entry["step"] for entry in scan.history if entry["step"] not in BEFORE]:
        raise DataError(f"coregister comes after {late[0]}. Put it right after reorient.")
    intensities = [c.name for c in scan.channels if c.kind != "label"]
    reference = _index(scan, config.reference or intensities[0], intensities)
    leader = _index(scan, config.labels_with or scan.channels[reference].name, intensities)
    volumes = own_grids(scan)
    fixed = _Fixed.of(scan, *volumes[reference])
    moves: dict[int, tuple[np.ndarray, dict[str, Any]]] = {reference: (np.eye(4), {})}
    for index, channel in enumerate(scan.channels):
        if index != reference and channel.kind != "label":
            moves[index] = _move(fixed, *volumes[index], config.tolerance_mm)
    image = np.empty((len(volumes), *fixed.volume.shape), dtype=np.float32)
    facts = {}
    for index, channel in enumerate(scan.channels):
        label = channel.kind == "label"
        matrix, about = moves[leader if label else index]
        image[index] = _brought(fixed, *volumes[index], matrix, label=label)
        facts[channel.name] = {"with": scan.channels[leader].name} if label else about
    together: dict[str, Any] = {"apart": ()} if isinstance(scan, SessionScan) else {}
    return scan.after(
        "coregister",
        {"reference": scan.channels[reference].name, "channels": facts},
        image=image,
        affine=fixed.affine,
        foreground=fixed.support.astype(np.float32),
        **together,
    )


@dataclass(frozen=True)
class _Fixed:
    """The channel that stays."""

    volume: np.ndarray
    affine: np.ndarray
    support: np.ndarray

    @staticmethod
    def of(scan: PreparedScan, volume: np.ndarray, affine: np.ndarray) -> _Fixed:
        on_the_grid = same_grid(volume.shape, affine, scan.shape, scan.affine)
        support = scan.foreground >= FOREGROUND if on_the_grid else foreground(volume, affine)
        return _Fixed(volume, affine, support)

    @property
    def corners_mm(self) -> np.ndarray:
        """(8, 3) corners of the foreground's box in the world."""
        corners = np.array(list(product(*bounding_box(self.support))))
        return np.asarray(corners @ self.affine[:3, :3].T + self.affine[:3, 3])


def _index(scan: PreparedScan, name: str, intensities: list[str]) -> int:
    if name not in intensities:
        raise DataError(
            f"There is no intensity channel {name!r}.{nearest(name, intensities)} "
            f"The scan has: {', '.join(intensities)}."
        )
    return [channel.name for channel in scan.channels].index(name)


def _move(
    fixed: _Fixed, volume: np.ndarray, affine: np.ndarray, tolerance_mm: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the (4, 4) map from the reference's world to a channel's, and what it amounts to."""
    found = _rigid(fixed, volume, affine)
    matrix = matrix_of(found.transform)
    shifts_mm = fixed.corners_mm @ (matrix[:3, :3] - np.eye(3)).T + matrix[:3, 3]
    off_mm = float(np.linalg.norm(shifts_mm, axis=1).max())
    facts: dict[str, Any] = {
        "off_mm": round(off_mm, 3),
        "mutual_information": round(found.information, 4),
    }
    if off_mm <= tolerance_mm:
        return np.eye(4), {**facts, "moved": False}
    return matrix, {**facts, "moved": True, "reference_to_channel": np.round(matrix, 5).tolist()}


def _rigid(fixed: _Fixed, moving: np.ndarray, affine: np.ndarray) -> Match:
    """Return the rigid match of two volumes, from where headers put them and from their middles."""
    import SimpleITK as sitk
    from scipy.ndimage import distance_transform_edt

    spacing_mm = np.sqrt((fixed.affine[:3, :3] ** 2).sum(axis=0))
    near = distance_transform_edt(~fixed.support, sampling=spacing_mm) <= RIM_MM
    pair = Pair(
        averaged_to(capped(fixed.volume), fixed.affine, WORK_MM),
        mask_image(near, fixed.affine),
        averaged_to(capped(moving), affine, WORK_MM),
    )
    middle = _middle(fixed.support, fixed.affine)
    starts = []
    for offset in (np.zeros(3), _middle(foreground(moving, affine), affine) - middle):
        start = sitk.VersorRigid3DTransform()
        start.SetCenter(middle.tolist())
        start.SetTranslation(offset.tolist())
        starts.append(start)
    coarse = pair.smoothed(COARSE_SIGMA_MM, COARSE_SHRINK)
    found = [coarse.improved(start, step_mm=2.0, tolerance_mm=0.02) for start in starts]
    best = max(found, key=lambda match: match.information)
    return pair.improved(
        best.transform, levels=[(2, 2.0), (1, 1.0)], step_mm=0.5, tolerance_mm=0.005,
        sampled=[0.6, 0.2],
    )  # fmt: skip


def _middle(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] @ bounding_box(mask).mean(axis=1) + affine[:3, 3]


def _brought(
    fixed: _Fixed, volume: np.ndarray, affine: np.ndarray, matrix: np.ndarray, *, label: bool
) -> np.ndarray:
    """Return a channel's voxels on the reference's grid; untouched where they lie there."""
    places, shape = matrix @ fixed.affine, fixed.volume.shape
    if same_grid(volume.shape, affine, shape, places):
        return volume
    if label:
        return resampled(volume, affine, places, shape, nearest=True)
    # How long the reference's voxels are along the channel's own axes.
    along = np.linalg.norm(np.linalg.solve(affine[:3, :3], places[:3, :3]), axis=1)
    own_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return resampled(as_seen_by(volume, affine, along * own_mm), affine, places, shape)
