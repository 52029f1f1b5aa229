"""Numbers that tell which prepared scans to look at."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gyri.cohort.prepared import PreparedCohort

LIMIT = 3.5
"""Robust z-score beyond which a scan is to be looked at (B. Iglewicz and D. C. Hoaglin, 1993)."""

MAD_PER_SIGMA = 0.6745
MEAN_AD_PER_SIGMA = 0.7979
MEASURES = ("brain_ml", "mean_intensity", "contrast", "noise", "correlation")
"""What `outliers` compares; only a low correlation makes an outlier."""


def outliers(prepared: PreparedCohort, limit: float = LIMIT) -> pd.DataFrame:
    """Measure every prepared scan and compare it with the others.

    Parameters
    ----------
    limit : robust z-score from which on a scan is an outlier.

    Returns
    -------
    pandas.DataFrame
        One row a scan, indexed as the cohort's table: ``session``, ``brain_ml``,
        ``mean_intensity``, ``contrast`` and ``noise`` (see `measure_scan`), ``correlation`` (with
        the cohort's mean), ``z_*`` the robust z-score of each, and ``outlier``.
    """
    channel = next(i for i, c in enumerate(prepared.channels) if c.kind == "intensity")
    voxel_ml = float(np.prod(prepared.grid.spacing_mm)) / 1000
    rows = [prepared.table.iloc[n : n + 1] for n in range(len(prepared.table))]
    mean = np.zeros(prepared.grid.shape)
    for row in rows:
        mean += _volume(prepared, row, channel)
    measured = []
    for row in rows:
        volume = _volume(prepared, row, channel)
        alike = float(np.corrcoef(volume.ravel(), mean.ravel())[0, 1]) if volume.any() else 0.0
        measured.append({**measure_scan(volume, volume > 0, voxel_ml), "correlation": alike})
    table = pd.DataFrame(measured, index=prepared.table.index, columns=list(MEASURES))
    table.insert(0, "session", prepared.table["session"])
    scores = table[list(MEASURES)].apply(robust_z).add_prefix("z_")
    table = pd.concat([table, scores], axis=1)
    low_only = scores["z_correlation"] < -limit
    table["outlier"] = low_only | (scores.drop(columns="z_correlation").abs() > limit).any(axis=1)
    return table


def measure_scan(volume: np.ndarray, mask: np.ndarray, voxel_ml: float) -> dict[str, float]:
    """Measure size and intensities of one scan.

    Parameters
    ----------
    volume, mask : (I, J, K) values and the boolean brain (or head).
    voxel_ml : volume of a voxel.

    Returns
    -------
    dict
        ``brain_ml``, the mask's volume; ``mean_intensity`` inside it; ``contrast``
        ``(p90 - p10) / (p90 + p10)`` of the percentiles inside it; ``noise``, the robust standard
        deviation of second differences along K inside it, over the mean. Contrast and noise do
        not depend on the unit of the intensities; of an empty mask all is 0.
    """
    inside = volume[mask]
    mean = float(inside.mean()) if inside.size else 0.0
    low, high = np.percentile(inside, (10, 90)) if inside.size else (0.0, 0.0)
    return {
        "brain_ml": float(mask.sum() * voxel_ml),
        "mean_intensity": mean,
        "contrast": float((high - low) / (high + low)) if high + low > 0 else 0.0,
        "noise": _noise_sd(volume, mask) / mean if mean > 0 else 0.0,
    }


def _noise_sd(volume: np.ndarray, mask: np.ndarray) -> float:
    """Standard deviation of independent noise: anatomy bends little from voxel to voxel.

    A second difference of white noise has ``1 + 4 + 1`` times its variance.
    """
    bend = volume[..., :-2] - 2 * volume[..., 1:-1] + volume[..., 2:]
    inside = mask[..., :-2] & mask[..., 1:-1] & mask[..., 2:]
    if not inside.any():
        return 0.0
    return float(np.median(np.abs(bend[inside])) / MAD_PER_SIGMA / np.sqrt(6))


def robust_z(values: pd.Series) -> pd.Series:
    """Return ``(x - median) / (1.4826 MAD)``, or 0 where all values are the same.

    Where more than half of the values are the same, MAD is 0 and ``1.2533`` times the mean
    absolute deviation takes its place (Iglewicz and Hoaglin).
    """
    spread = _spread(values)
    away = values - values.median()
    return away / spread if spread > 0 else away * 0.0


def robust_limits(values: pd.Series, limit: float = LIMIT) -> tuple[float, float]:
    """Return the values whose `robust_z` is ``-limit`` and ``limit``."""
    middle, reach = float(values.median()), limit * _spread(values)
    return middle - reach, middle + reach


def _spread(values: pd.Series) -> float:
    away = (values - values.median()).abs()
    return float(away.median() / MAD_PER_SIGMA or away.mean() / MEAN_AD_PER_SIGMA)


def _volume(prepared: PreparedCohort, row: pd.DataFrame, channel: int) -> np.ndarray:
    return np.asarray(prepared.unit_intensities(row, [channel])[0, 0])
