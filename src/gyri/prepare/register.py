"""Bring scans into the MNI152 template's space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.align import align, moved
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import MAX_BRAIN_ML, PreparedScan
from gyri.prepare.template import mni152
from gyri.registry import STEPS

SHEAR_TOLERANCE = 0.01
"""Headers round; a grid with more shear than this was registered before."""


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """Which map is sought.

    Parameters
    ----------
    transform : ``"affine"`` (12 parameters) or ``"rigid"`` (6; sizes stay what they are).
    """

    transform: Literal["affine", "rigid"] = "affine"

    def __post_init__(self) -> None:
        if self.transform not in ("affine", "rigid"):
            raise UsageError(
                f"transform is {self.transform!r}; expected 'affine' or 'rigid'. For a warp, put "
                "the step nonlinear after register."
            )


@STEPS.register("register", RegisterConfig)
def register(scan: PreparedScan, config: RegisterConfig) -> PreparedScan:
    """Register the brain to MNI152; only the affine changes, `resample` interpolates once.

    The first channel that holds intensities is registered and the others follow. Put `brain_mask`
    before, and `resample` or `nonlinear` after this step.

    Raises
    ------
    DataError
        The scan's grid has shear: it was registered already and never resampled.
    """
    unit = scan.affine[:3, :3] / scan.spacing_mm
    if np.abs(unit.T @ unit - np.eye(3)).max() > SHEAR_TOLERANCE:
        raise DataError("The scan's axes are not at right angles. Resample before registering.")
    index = next(i for i, channel in enumerate(scan.channels) if channel.kind != "label")
    support = scan.foreground >= FOREGROUND
    support_ml = support.sum() * abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    found = align(
        mni152(), scan.image[index] * support, scan.affine, support,
        whole_head=bool(support_ml > MAX_BRAIN_ML), rigid=config.transform == "rigid",
    )  # fmt: skip
    facts = {
        "transform": config.transform,
        "template": "MNI152NLin2009aSym",
        "template_to_scan": np.round(found.matrix, 5).tolist(),
        "mutual_information": round(found.information, 4),
    }
    return scan.after("register", facts, affine=moved(scan.affine, found))
