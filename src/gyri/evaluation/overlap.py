"""How well people's regions lie on each other in a common space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gyri.errors import DataError

FloatArray = NDArray[np.float64]


def pairwise_dice(labels: Sequence[NDArray[np.int16]]) -> tuple[list[int], FloatArray]:
    """Return each person's Dice with everybody else, by region.

    Parameters
    ----------
    labels : N maps (I, J, K) of regions on one grid; 0 is none.

    Returns
    -------
    regions : the R values that at least two people have.
    dice : (N, R), the mean over the others that have the region; NaN for who lacks it.

    Raises
    ------
    DataError
        If there are fewer than two maps.
    """
    if len(labels) < 2:
        raise DataError(f"Dice between people needs two label maps or more, got {len(labels)}.")
    maps = np.stack([np.asarray(one).ravel() for one in labels])
    regions, columns = [], []
    for value in np.unique(maps[maps > 0]).tolist():
        has = maps == value
        inside = has[:, has.any(0)].astype(np.float32)
        sizes = inside.sum(1)
        there = sizes > 0
        if there.sum() < 2:
            continue
        with np.errstate(invalid="ignore"):
            pairs = 2 * (inside @ inside.T) / (sizes[:, None] + sizes[None])
        pairs[~there] = np.nan
        pairs[:, ~there] = np.nan
        np.fill_diagonal(pairs, np.nan)
        column = np.full(len(maps), np.nan)
        column[there] = np.nanmean(pairs[there], axis=1)
        regions.append(int(value))
        columns.append(column)
    return regions, np.stack(columns, axis=1)
