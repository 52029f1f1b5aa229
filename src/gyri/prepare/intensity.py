"""Bring intensities to [0, 1] by a percentile of the foreground; background is exactly 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """Robust scaling.

    Parameters
    ----------
    percentile : percentile of the foreground that is mapped to `level`. The 95th varies by 1.4 %
        between the scans of OASIS-1, the 99.5th, which follows vessels and remnants of the
        skull, by 17 %.
    level : where it is mapped to; the room above it is for what is brighter.
    max_clipped : largest share of the foreground that may be brighter than 1.
    """

    percentile: float = 95.0
    level: float = 0.8
    max_clipped: float = 0.05

    def __post_init__(self) -> None:
        if not (0 < self.percentile <= 100 and 0 < self.level <= 1):
            raise UsageError(
                f"percentile is {self.percentile} and level {self.level}; expected a percentile "
                "up to 100 and a level up to 1, both above 0."
            )


@STEPS.register("intensity", IntensityConfig)
def intensity(scan: PreparedScan, config: IntensityConfig) -> PreparedScan:
    """Scale each intensity channel to [0, 1] and set the background to 0.

    0 stays 0, unless the foreground holds negative values; then its 0.5th percentile becomes 0.
    Values outside [0, 1] are clipped, and their share is recorded.

    Raises
    ------
    DataError
        The foreground has no contrast, or more than `max_clipped` of it would be clipped.
    """
    mask = scan.foreground >= FOREGROUND
    if not mask.any():
        raise DataError("No voxel is foreground. Look at the scan; it may be empty.")
    image = np.zeros_like(scan.image, dtype=np.float32)
    facts: dict[str, dict[str, float]] = {}
    for index, channel in enumerate(scan.channels):
        volume = scan.image[index]
        if channel.kind == "label":
            image[index] = volume
            continue
        image[index], facts[channel.name] = _scaled(volume, mask, config)
    return scan.after("intensity", {"scaling": facts}, image=image)


def _scaled(
    volume: np.ndarray, mask: np.ndarray, config: IntensityConfig
) -> tuple[np.ndarray, dict[str, float]]:
    values = volume[mask]
    zero = min(0.0, float(np.percentile(values, 0.5)))
    top = float(np.percentile(values, config.percentile))
    if top <= zero:
        raise DataError(
            f"The foreground has no contrast: its {config.percentile:g}th percentile is {top:g}. "
            "Look at the scan."
        )
    scaled = np.where(mask, (volume - zero) * (config.level / (top - zero)), 0)
    above, below = float((scaled[mask] > 1).mean()), float((scaled[mask] < 0).mean())
    if above > config.max_clipped:
        raise DataError(
            f"{above:.1%} of the foreground would be clipped at 1; at most "
            f"{config.max_clipped:.1%} may be. Choose a higher percentile or a lower level."
        )
    facts = {
        "zero": zero,
        "percentile_value": top,
        "clipped_above_percent": round(100 * above, 4),
        "clipped_below_percent": round(100 * below, 4),
    }
    return np.clip(scaled, 0, 1).astype(np.float32), facts
