"""Squared Euclidean distances by matrix products, exact where that matters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]

CANCELLATION = 1e-3
"""Share of the two norms below which a distance is computed from the differences."""
TIE = 1e-9
"""Relative gap of two squared distances that a matrix product cannot tell apart."""
CHUNK = 2**21


def paired(x: FloatArray, y: FloatArray, rows: Rows, columns: Rows) -> FloatArray:
    """Return squared distances of ``x[rows]`` and ``y[columns]`` from the differences.

    Equal pairs of values give equal bits wherever they are computed; equal rows give 0.
    """
    out = np.empty(len(rows))
    step = max(1, CHUNK // max(x.shape[1], 1))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        gap = x[rows[part]] - y[columns[part]]
        out[part] = (gap * gap).sum(1)
    return out


def squared_distances(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return (n, m) squared distances between the rows of x (n, d) and y (m, d).

    ``|x|^2 + |y|^2 - 2 x . y`` after the mean of x is taken off, relative error about 1e-12;
    pairs close together, where the sum cancels, are computed from their differences, so that
    equal rows are at exactly 0.
    """
    centre = x.mean(0)
    a = x - centre
    b = a if y is x else y - centre
    norm_a, norm_b = (a * a).sum(1), (b * b).sum(1)
    level = norm_a[:, None] + norm_b[None, :]
    out = np.matmul(a, b.T)
    out *= -2.0
    out += level
    level *= CANCELLATION
    rows, columns = np.nonzero(out < level)
    out[rows, columns] = paired(x, y, rows, columns)
    return out


def below(
    squared: FloatArray, radius: FloatArray, x: FloatArray, y: FloatArray
) -> NDArray[np.bool_]:
    """Return (n, m), where the squared distance of x_i and y_j is strictly below ``radius_i``.

    Parameters
    ----------
    squared : (n, m) from `squared_distances`.
    radius : (n,) squared, from `paired`; a pair at exactly this distance is outside.
    """
    inside = squared < radius[:, None] * (1 - TIE)
    tied = (squared <= radius[:, None] * (1 + TIE)) ^ inside
    rows, columns = np.nonzero(tied)
    inside[rows, columns] = paired(x, y, rows, columns) < radius[rows]
    return inside
