"""Smooth with a Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import UsageError
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS
from gyri.types import FWHM_PER_SIGMA


@dataclass(frozen=True, kw_only=True)
class SmoothConfig:
    """A Gaussian.

    Parameters
    ----------
    fwhm_mm : full width at half maximum.
    """

    fwhm_mm: float = 4.0

    def __post_init__(self) -> None:
        if self.fwhm_mm <= 0:
            raise UsageError(f"fwhm_mm is {self.fwhm_mm}; expected a width above 0 mm.")


@STEPS.register("smooth", SmoothConfig)
def smooth(scan: PreparedScan, config: SmoothConfig) -> PreparedScan:
    """Convolve each intensity channel with a Gaussian; the foreground stays what it is."""
    from scipy.ndimage import gaussian_filter

    sigma_voxels = config.fwhm_mm / FWHM_PER_SIGMA / scan.spacing_mm
    image = np.stack(
        [
            volume if channel.kind == "label" else gaussian_filter(volume, sigma_voxels)
            for volume, channel in zip(scan.image, scan.channels)
        ]
    )
    return scan.after("smooth", {"fwhm_mm": config.fwhm_mm}, image=image)
