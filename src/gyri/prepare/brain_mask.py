"""Keep the brain and take the rest of the head away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.align import Alignment, align
from gyri.prepare.itk import resampled
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan, is_stripped
from gyri.prepare.template import SPACING_MM, Template, mni152
from gyri.registry import STEPS

PLAUSIBLE_ML = (700.0, 2400.0)
MIN_INFORMATION = 0.2
"""Whole heads of IXI reach 0.3 to 0.45 where the mask is right, in nats."""


@dataclass(frozen=True, kw_only=True)
class BrainMaskConfig:
    """How the brain is found.

    Parameters
    ----------
    channel : label channel that holds a mask (not 0 is brain); None finds the brain by
        registration of the MNI152 template.
    margin_mm : the template's mask ends at the cortex; it is grown by this, into the fluid
        around the brain.
    apply : set everything outside to 0. False only marks the brain, for `deface`.
    """

    channel: str | None = None
    margin_mm: float = 2.0
    apply: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.margin_mm <= 20:
            raise UsageError(f"margin_mm is {self.margin_mm}; expected 0 to 20 mm.")


@STEPS.register("brain_mask", BrainMaskConfig)
def brain_mask(scan: PreparedScan, config: BrainMaskConfig) -> PreparedScan:
    """Set what is no brain to 0; a scan that is stripped already keeps its own support.

    Raises
    ------
    DataError
        The mask's channel is missing or empty, or no plausible brain was found.
    """
    intensities = [i for i, channel in enumerate(scan.channels) if channel.kind != "label"]
    facts: dict[str, Any]
    if config.channel is not None:
        mask = _given(scan, config.channel)
        facts = {"method": "given", "channel": config.channel}
    elif is_stripped(scan.image[intensities[0]], scan.affine):
        mask = scan.foreground >= FOREGROUND
        facts = {"method": "stripped before"}
    else:
        volume = scan.image[intensities[0]]
        mask, found = template_mask(volume, scan.affine, scan.foreground > 0, config.margin_mm)
        facts = {
            "method": "template",
            "template": "MNI152NLin2009aSym",
            "margin_mm": config.margin_mm,
            "mutual_information": round(found.information, 4),
        }
    facts["brain_ml"] = round(float(mask.sum() * _voxel_ml(scan.affine)), 1)
    facts["applied"] = config.apply
    image = scan.image
    if config.apply:
        image = image.copy()
        image[intensities] *= mask
    return scan.after("brain_mask", facts, image=image, foreground=mask.astype(np.float32))


def template_mask(
    volume: np.ndarray, affine: np.ndarray, head: np.ndarray, margin_mm: float
) -> tuple[np.ndarray, Alignment]:
    """Return the mask (I, J, K) of a whole head's brain, and the template's alignment.

    Raises
    ------
    DataError
        The template does not fit.
    """
    template = mni152()
    found = align(template, volume, affine, head, whole_head=True)
    native_per_template = float(np.cbrt(np.linalg.det(found.matrix[:3, :3])))
    distance = _distance_mm(template) * native_per_template
    in_template = np.linalg.solve(found.matrix, affine)
    # Linear interpolation is 0 outside the template's grid, where the distance must be large.
    depth = resampled(
        np.maximum(margin_mm + 1 - distance, 0), template.affine, in_template, _triple(volume.shape)
    )
    mask = depth >= 1
    brain_ml = mask.sum() * _voxel_ml(affine)
    low, high = PLAUSIBLE_ML
    if not (low <= brain_ml <= high and found.information >= MIN_INFORMATION):
        raise DataError(
            f"No brain was found: the template's mask holds {brain_ml:.0f} ml (expected {low:.0f} "
            f"to {high:.0f}) at a mutual information of {found.information:.2f} (expected at "
            f"least {MIN_INFORMATION}). Give a mask as a label channel (brain_mask.channel)."
        )
    return mask, found


def _given(scan: PreparedScan, name: str) -> np.ndarray:
    labels = {c.name: i for i, c in enumerate(scan.channels) if c.kind == "label"}
    if name not in labels:
        raise DataError(
            f"There is no label channel {name!r} to take the brain mask from; the scan has "
            f"{', '.join(channel.name for channel in scan.channels)}. Add it to the channels."
        )
    mask = scan.image[labels[name]] > 0
    if not mask.any():
        raise DataError(f"The brain mask in channel {name!r} is empty. Replace it.")
    return mask


def _distance_mm(template: Template) -> np.ndarray:
    """Return the distance to the template brain's surface, negative inside."""
    from scipy.ndimage import distance_transform_edt

    # Distances run between centres of voxels; the surface lies half a voxel before the centre.
    half_mm = SPACING_MM / 2
    outside = distance_transform_edt(~template.mask, sampling=[SPACING_MM] * 3) - half_mm
    inside = distance_transform_edt(template.mask, sampling=[SPACING_MM] * 3) - half_mm
    return np.where(template.mask, -inside, outside).astype(np.float32)


def _voxel_ml(affine: np.ndarray) -> float:
    return float(abs(np.linalg.det(affine[:3, :3]))) / 1000


def _triple(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]
