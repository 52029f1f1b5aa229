"""Turn voxel axes so that I runs to the right, J to anterior, K to superior (RAS+)."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np

from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS


@dataclass(frozen=True, kw_only=True)
class ReorientConfig:
    """Nothing to choose: volumes are RAS+ everywhere in gyri."""


@STEPS.register("reorient", ReorientConfig)
def reorient(scan: PreparedScan, config: ReorientConfig) -> PreparedScan:
    """Flip and swap axes to the closest RAS+ order; no voxel's value changes.

    The affine follows, so that every voxel stays where it is in the world.
    """
    orientation = nib.io_orientation(scan.affine)
    codes = "".join(nib.aff2axcodes(scan.affine))
    image = np.stack([nib.apply_orientation(volume, orientation) for volume in scan.image])
    return scan.after(
        "reorient",
        {"from": codes, "to": "RAS"},
        image=image,
        foreground=nib.apply_orientation(scan.foreground, orientation),
        affine=scan.affine @ nib.orientations.inv_ornt_aff(orientation, scan.shape),
    )
