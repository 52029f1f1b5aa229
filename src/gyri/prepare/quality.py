"""Numbers that tell which prepared scans to look at."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gyri.cohort.prepared import PreparedCohort

LIMIT = 3.5
"""Robust z-score beyond which a scan is to be looked at (B. Iglewicz and D. C. Hoaglin, 1993)."""

MAD_PER_SIGMA = 0.6745
MEAN_AD_PER_SIGMA = 0.7979
MEASURES = ("brain_ml", "mean_intensity", "correlation")


def outliers(prepared: PreparedCohort, limit: float = LIMIT) -> pd.DataFrame:
    """Measure every prepared scan and compare it with the others.

    Parameters
    ----------
    limit : robust z-score from which on a scan is an outlier.

    Returns
    -------
    pandas.DataFrame
        One row a scan, indexed as the cohort's table: ``session``, ``brain_ml`` (volume of what
        is not 0), ``mean_intensity`` (over it), ``correlation`` (with the cohort's mean), ``z_*``
        the robust z-score of each, and ``outlier``.
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
        inside = volume > 0
        measured.append(
            (
                float(inside.sum() * voxel_ml),
                float(volume[inside].mean()) if inside.any() else 0.0,
                float(np.corrcoef(volume.ravel(), mean.ravel())[0, 1]) if inside.any() else 0.0,
            )
        )
    table = pd.DataFrame(measured, index=prepared.table.index, columns=list(MEASURES))
    table.insert(0, "session", prepared.table["session"])
    scores = table[list(MEASURES)].apply(robust_z).add_prefix("z_")
    table = pd.concat([table, scores], axis=1)
    low_only = scores["z_correlation"] < -limit
    table["outlier"] = low_only | (scores.drop(columns="z_correlation").abs() > limit).any(axis=1)
    return table


def robust_z(values: pd.Series) -> pd.Series:
    """Return ``(x - median) / (1.4826 MAD)``, or 0 where all values are the same.

    Where more than half of the values are the same, MAD is 0 and ``1.2533`` times the mean
    absolute deviation takes its place (Iglewicz and Hoaglin).
    """
    away = values - values.median()
    spread = away.abs().median() / MAD_PER_SIGMA or away.abs().mean() / MEAN_AD_PER_SIGMA
    return away / spread if spread > 0 else away * 0.0


def _volume(prepared: PreparedCohort, row: pd.DataFrame, channel: int) -> np.ndarray:
    stored, scale = prepared.load(row)
    return stored[0, channel].astype(np.float32) * np.float32(scale)
