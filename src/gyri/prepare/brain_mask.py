"""Keep the brain and take the rest of the head away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gyri.errors import DataError, UsageError, nearest
from gyri.prepare.align import Alignment, align
from gyri.prepare.brain_tools import TOOLS, tool_mask
from gyri.prepare.itk import resampled
from gyri.prepare.provided_mask import check_pattern, mask_channel, mask_file, read_mask
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan, is_stripped
from gyri.prepare.survey import SessionScan
from gyri.prepare.template import SPACING_MM, Template, mni152
from gyri.registry import STEPS

PLAUSIBLE_ML = (700.0, 2400.0)
MIN_INFORMATION = 0.2
"""Whole heads of IXI reach 0.3 to 0.45 where the mask is right, in nats."""


Method = Literal["auto", "provided", "template", "synthstrip", "hd-bet"]
METHODS = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class BrainMaskConfig:
    """How the brain is found.

    Parameters
    ----------
    method : ``"provided"`` takes a mask that is there already; ``"template"`` registers the
        MNI152 template; ``"synthstrip"`` and ``"hd-bet"`` run programs that are installed.
        ``"auto"`` is provided where there is a mask and template elsewhere: it gives the same
        masks on every machine and downloads nothing, whatever else is installed.
    channel : label channel that holds a provided mask (not 0 is brain).
    file : path of provided masks, with ``{subject}``, ``{session}`` and ``{stem}`` (the scan's
        file name without its ending) filled in for each scan. Where neither it nor `channel` is
        given, ``*_desc-brain_mask.nii.gz`` beside the scan is looked for.
    margin_mm : the template's mask ends at the cortex; it is grown by this, into the fluid
        around the brain. Other methods' masks stay as they are.
    timeout_s : after this a program is stopped and the scan put aside.
    apply : set everything outside to 0. False only marks the brain, for `deface`.
    """

    method: Method = "auto"
    channel: str | None = None
    file: str | None = None
    margin_mm: float = 2.0
    timeout_s: float = 900.0
    apply: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"method is {self.method!r}; expected one of {', '.join(METHODS)}."
                f"{nearest(str(self.method), METHODS)}"
            )
        if self.channel is not None and self.file is not None:
            raise UsageError("channel and file both name masks; give one of them.")
        if (self.channel or self.file) and self.method not in ("auto", "provided"):
            raise UsageError(
                f"method is {self.method!r}, but a provided mask is named too. Leave out channel "
                "and file, or choose the method 'provided'."
            )
        if not 0 <= self.margin_mm <= 20:
            raise UsageError(f"margin_mm is {self.margin_mm}; expected 0 to 20 mm.")
        if self.timeout_s <= 0:
            raise UsageError(f"timeout_s is {self.timeout_s}; expected more than 0 seconds.")
        check_pattern(self.file or "")


@STEPS.register("brain_mask", BrainMaskConfig)
def brain_mask(scan: PreparedScan, config: BrainMaskConfig) -> PreparedScan:
    """Set what is no brain to 0; without a provided mask a stripped scan keeps its own support.

    The first channel that holds intensities is looked at and the others follow.

    Raises
    ------
    DataError
        The provided mask is missing, empty or on another grid; no plausible brain was found; a
        program failed.
    UnavailableError
        The method's program is not installed.
    """
    intensities = [i for i, channel in enumerate(scan.channels) if channel.kind != "label"]
    volume = scan.image[intensities[0]]
    mask, facts = _provided(scan, config) or (None, {})
    if mask is None and is_stripped(volume, scan.affine):
        mask, facts = scan.foreground >= FOREGROUND, {"method": "stripped before"}
    elif mask is None:
        mask, facts = _found(scan, volume, config)
    facts["brain_ml"] = round(float(mask.sum() * _voxel_ml(scan.affine)), 1)
    facts["applied"] = config.apply
    image = scan.image
    if config.apply:
        image = image.copy()
        image[intensities] *= mask
    return scan.after("brain_mask", facts, image=image, foreground=mask.astype(np.float32))


def _provided(
    scan: PreparedScan, config: BrainMaskConfig
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Return the provided mask, or None where the method can do without."""
    if config.method not in ("auto", "provided"):
        return None
    if config.channel is not None:
        mask = mask_channel(scan, config.channel)
        return mask, {"method": "provided", "channel": config.channel}
    path = mask_file(scan.source, config.file) if isinstance(scan, SessionScan) else None
    if path is None and config.method == "provided":
        raise DataError(
            "No mask is provided: there is no *_desc-brain_mask.nii.gz beside the scan. Name one "
            "with brain_mask.file or brain_mask.channel, or choose the method 'template'."
        )
    return None if path is None else (read_mask(path, scan), {"method": "provided"})


def _found(
    scan: PreparedScan, volume: np.ndarray, config: BrainMaskConfig
) -> tuple[np.ndarray, dict[str, Any]]:
    if config.method in TOOLS:
        mask = tool_mask(config.method, volume, scan.affine, config.timeout_s)
        return _plausible(mask, scan.affine, config.method), {"method": config.method}
    mask, found = template_mask(volume, scan.affine, scan.foreground > 0, config.margin_mm)
    return mask, {
        "method": "template",
        "template": "MNI152NLin2009aSym",
        "margin_mm": config.margin_mm,
        "mutual_information": round(found.information, 4),
    }


def _plausible(mask: np.ndarray, affine: np.ndarray, method: str) -> np.ndarray:
    brain_ml = mask.sum() * _voxel_ml(affine)
    low, high = PLAUSIBLE_ML
    if not low <= brain_ml <= high:
        raise DataError(
            f"No brain was found: the mask of {method} holds {brain_ml:.0f} ml, expected {low:.0f} "
            f"to {high:.0f}. Look at the scan, or provide a mask (brain_mask.file)."
        )
    return mask


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
            f"least {MIN_INFORMATION}). Provide a mask (brain_mask.file or brain_mask.channel)."
        )
    return mask, found


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
