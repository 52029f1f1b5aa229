"""Bring intensities to [0, 1]; background is exactly 0.

Steps work in [0, 1], and the files hold ``low + (high - low) x value`` of the output range, so that
whatever comes after this step may pad with 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gyri.errors import DataError, UsageError
from gyri.prepare.resample import FOREGROUND
from gyri.prepare.scan import PreparedScan
from gyri.registry import STEPS

Scaling = Literal["percentile", "min-max", "z-score", "white-stripe", "histogram"]
Z_RANGE = 4.0
"""Standard deviations on either side of the mean that are kept; what lies beyond is clipped."""

QUANTILES = np.linspace(0, 1, 257)


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """How values of the foreground are mapped.

    Parameters
    ----------
    method : ``"percentile"`` maps a percentile to `level`, ``"min-max"`` the smallest value to 0
        and the largest to 1, ``"z-score"`` z to ``0.5 + z / 8``,
        ``"white-stripe"`` the peak of white matter to `level`, ``"histogram"`` the quantiles to
        those of the MNI152 T1 template.
    percentile : percentile of the foreground that is mapped to `level`. The 95th varies by 1.4 %
        between the scans of OASIS-1, the 99.5th, which follows vessels and remnants of the
        skull, by 17 %.
    level : where it is mapped to; the room above it is for what is brighter.
    max_clipped : largest share of the foreground that may be brighter than 1.
    output_range : what 0 and 1 are in the files; the background is the lowest value. ``(-1, 1)``
        is what many GANs are fed; with ``"z-score"`` ``(-4, 4)`` makes the files hold the z-scores
        themselves, and with ``"white-stripe"`` ``(0, 1 / level)`` makes white matter 1.
    """

    method: Scaling = "percentile"
    percentile: float = 95.0
    level: float = 0.8
    max_clipped: float = 0.05
    output_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.method not in get_args(Scaling):
            raise UsageError(
                f"method is {self.method!r}; expected one of {', '.join(get_args(Scaling))}."
            )
        if not (0 < self.percentile <= 100 and 0 < self.level <= 1):
            raise UsageError(
                f"percentile is {self.percentile} and level {self.level}; expected a percentile "
                "up to 100 and a level up to 1, both above 0."
            )
        low, high = self.output_range
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise UsageError(
                f"output_range is {list(self.output_range)}; expected two numbers, the lower first."
            )


@STEPS.register("intensity", IntensityConfig)
def intensity(scan: PreparedScan, config: IntensityConfig) -> PreparedScan:
    """Scale each intensity channel to [0, 1] and set the background to 0.

    With ``"percentile"`` and ``"white-stripe"`` 0 stays 0, unless the foreground holds negative
    values; then its 0.5th percentile becomes 0. Values outside [0, 1] are clipped, and their
    share is recorded.

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
    return scan.after("intensity", {"method": config.method, "scaling": facts}, image=image)


def _scaled(
    volume: np.ndarray, mask: np.ndarray, config: IntensityConfig
) -> tuple[np.ndarray, dict[str, float]]:
    values = volume[mask].astype(np.float64)
    mapped, facts = _mapped(values, config)
    above, below = float((mapped > 1).mean()), float((mapped < 0).mean())
    if above > config.max_clipped:
        raise DataError(
            f"{above:.1%} of the foreground would be clipped at 1; at most "
            f"{config.max_clipped:.1%} may be. Choose a higher percentile or a lower level."
        )
    facts["clipped_above_percent"] = round(100 * above, 4)
    facts["clipped_below_percent"] = round(100 * below, 4)
    scaled = np.zeros(volume.shape, np.float32)
    scaled[mask] = np.clip(mapped, 0, 1)
    return scaled, facts


def _mapped(values: np.ndarray, config: IntensityConfig) -> tuple[np.ndarray, dict[str, float]]:
    """Return the foreground's values mapped, not yet clipped, and what the map was made of."""
    if config.method == "histogram":
        own = np.quantile(values, QUANTILES)
        _contrast(own[0], own[-1], "largest value")
        rising = np.concatenate([[True], np.diff(own) > 0])
        return np.interp(values, own[rising], _template_quantiles()[rising]), {}
    if config.method == "z-score":
        mean, deviation = float(values.mean()), float(values.std())
        _contrast(mean, mean + deviation, "mean plus one standard deviation")
        z = (values - mean) / deviation
        return 0.5 + z / (2 * Z_RANGE), {"mean": mean, "standard_deviation": deviation}
    if config.method == "min-max":
        low, high = float(values.min()), float(values.max())
        _contrast(low, high, "largest value")
        return (values - low) / (high - low), {"zero": low, "one": high}
    zero = min(0.0, float(np.percentile(values, 0.5)))
    if config.method == "white-stripe":
        peak = _white_peak(values)
        _contrast(zero, peak, "white matter's peak")
        return (values - zero) * (config.level / (peak - zero)), {"zero": zero, "white": peak}
    top = float(np.percentile(values, config.percentile))
    _contrast(zero, top, f"{config.percentile:g}th percentile")
    facts = {"zero": zero, "percentile_value": top}
    return (values - zero) * (config.level / (top - zero)), facts


def _contrast(low: float, high: float, name: str) -> None:
    if high <= low:
        raise DataError(
            f"The foreground has no contrast: its {name} is {high:g}. Look at the scan."
        )


def _white_peak(values: np.ndarray) -> float:
    """Return the brightest peak of the smoothed histogram of a T1-weighted brain.

    R. T. Shinohara et al., "Statistical normalization techniques for magnetic resonance imaging",
    NeuroImage: Clinical 6, 9 (2014): the last peak is white matter.
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    low, high = np.percentile(values, [1, 99.5])
    counts, edges = np.histogram(values, bins=256, range=(low, max(high, low + 1e-6)))
    smoothed = gaussian_filter1d(counts.astype(float), 5.0)
    peaks, _ = find_peaks(smoothed, prominence=0.05 * smoothed.max())
    last = int(peaks[-1]) if len(peaks) else int(smoothed.argmax())
    return float(edges[last] + edges[last + 1]) / 2


def _template_quantiles() -> np.ndarray:
    from gyri.prepare.template import mni152

    template = mni152()
    return np.asarray(np.quantile(template.image[template.mask], QUANTILES))
