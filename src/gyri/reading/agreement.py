"""How far readers agree, with each other and with themselves."""

from __future__ import annotations

from typing import Literal

import numpy as np

Scale = Literal["nominal", "ordinal", "interval"]


def fleiss_kappa(table: np.ndarray) -> float:
    """Return Fleiss' kappa (1971); NaN where every answer is the same.

    Parameters
    ----------
    table : (cases, readers) of answers, none missing.
    """
    answers, codes = np.unique(table, return_inverse=True)
    codes = codes.reshape(table.shape)
    counts = np.stack([(codes == k).sum(1) for k in range(len(answers))], axis=1).astype(float)
    n = table.shape[1]
    observed = float(((counts**2).sum(1) - n).mean() / (n * (n - 1)))
    expected = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def krippendorff_alpha(table: np.ndarray, scale: Scale = "nominal") -> float:
    """Return Krippendorff's alpha; NaN where every answer is the same.

    Parameters
    ----------
    table : (cases, readers) of numbers, NaN where a reader did not see a case. For a nominal scale
        the numbers are codes.
    scale : how far apart two answers are; see K. Krippendorff, *Content Analysis*, chapter 11.
    """
    table = np.asarray(table, float)
    values = np.unique(table[np.isfinite(table)])
    coincidence = np.zeros((len(values), len(values)))
    for row in table:
        seen = row[np.isfinite(row)]
        if len(seen) < 2:
            continue
        counts = (seen[:, None] == values).sum(0).astype(float)
        coincidence += (np.outer(counts, counts) - np.diag(counts)) / (len(seen) - 1)
    totals = coincidence.sum(0)
    distance = _distances(values, totals, scale)
    expected = (np.outer(totals, totals) * distance).sum() / max(totals.sum() - 1, 1)
    if not expected > 0:
        return float("nan")
    return float(1 - (coincidence * distance).sum() / expected)


def _distances(values: np.ndarray, totals: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the squared difference of every pair of values."""
    if scale == "nominal":
        return 1.0 - np.eye(len(values))
    if scale == "interval":
        return (values[:, None] - values) ** 2
    # Ordinal: how many answers lie between two, each end counted half.
    upto = np.cumsum(totals) - totals / 2
    squares: np.ndarray = (upto[:, None] - upto) ** 2
    return squares


def self_kappa(
    first: np.ndarray, again: np.ndarray, weights: Literal["quadratic"] | None = None
) -> float:
    """Return Cohen's kappa of a reader's answers and repeats; NaN where it is not defined.

    With weights the answers are grades 1 to 5.
    """
    from sklearn.metrics import cohen_kappa_score

    if len(np.unique([*first, *again])) < 2:
        return float("nan")
    # The weights of grades count steps between labels, so that unused grades must be named, too.
    labels = np.arange(1, 6) if weights else None
    return float(cohen_kappa_score(first, again, labels=labels, weights=weights))
