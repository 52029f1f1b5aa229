"""Which slices of a scan may be pictured: nobody is recognised by a brain, but by a face.

A stripped scan is shown in three planes. Of a whole head only axial slices close below the vertex
are shown: the orbits lie about 90 mm below it in adults, so that neither eyes nor nose nor mouth
come into the picture. Where the vertex cannot be found, nothing is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.prepare.scan import bounding_box
from gyri.report.figures import PLANES
from gyri.views.base import Plane

BELOW_VERTEX_MM = (25.0, 35.0, 45.0)
"""Depths of the axial slices of a head; a head bent by 20 degrees shows no orbit in them."""

MIN_BREADTH_MM = 120.0
"""Heads that are narrower are small children's, whose orbits lie closer to the vertex."""

CUT_OFF_SHARE = 0.02
"""Share of the uppermost slice that is head from which on the vertex is outside the image."""

HEAD_NOTE = (
    "Whole heads: only axial slices above the orbits are pictured, because a face can be "
    "recognised. Use --allow-faces to picture them in three planes."
)


@dataclass(frozen=True)
class Cut:
    """One slice.

    Parameters
    ----------
    plane : ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    index : along the plane's axis.
    """

    plane: Plane
    index: int


def middle_cuts(mask: np.ndarray) -> tuple[Cut, ...]:
    """Return an axial, a coronal and a sagittal slice through the middle of the mask's box."""
    middle = bounding_box(mask).mean(axis=1).round().astype(int)
    return tuple(Cut(plane, int(middle[axis])) for plane, axis in zip(PLANES, (2, 1, 0)))


def cuts_above_orbits(head: np.ndarray, spacing_mm: np.ndarray) -> tuple[Cut, ...]:
    """Return axial slices of a head that show no face, or none where that is not certain.

    Parameters
    ----------
    head : (I, J, K) bool, RAS+, what is not air.
    spacing_mm : (3,) voxel size.
    """
    share = head.mean(axis=(0, 1))
    if share[-1] > CUT_OFF_SHARE or not (share > CUT_OFF_SHARE).any():
        return ()
    vertex = int(np.flatnonzero(share > 0)[-1])
    indices = [vertex - round(depth / spacing_mm[2]) for depth in BELOW_VERTEX_MM]
    if indices[-1] < 0:
        return ()
    columns = np.flatnonzero(head[:, :, indices[-1]].any(axis=1))
    breadth_mm = (columns[-1] - columns[0] + 1) * spacing_mm[0] if columns.size else 0.0
    if breadth_mm < MIN_BREADTH_MM:
        return ()
    return tuple(Cut("axial", index) for index in indices)
