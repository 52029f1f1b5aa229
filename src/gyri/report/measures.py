"""The few quantities that only the report draws; all scores come from the evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gyri.evaluation.features.spectrum import band_edges, log_power, projection
from gyri.evaluation.metrics.nearest import MASK_SHARE, unit_rows


@dataclass(frozen=True)
class Neighbours:
    """Nearest member of a gallery for each volume of a set.

    Parameters
    ----------
    index : (N,) rows of the gallery.
    mirrored : (N,) True where the member's mirror image is the nearest.
    correlation : (N,) correlation with it, in [-1, 1].
    """

    index: np.ndarray
    mirrored: np.ndarray
    correlation: np.ndarray


def nearest_residual(queries: np.ndarray, gallery: np.ndarray) -> Neighbours:
    """Find the gallery volume, mirrored or not, whose residual is most like each query's.

    The residual is what the gallery's mean image leaves, inside the mean brain: the similarity by
    which the metric ``nearest`` counts copies.

    Parameters
    ----------
    queries : (N, I, J, K).
    gallery : (M, I, J, K), M > 0.
    """
    mean = gallery.mean(axis=0)
    mean = (mean + mean[::-1]) / 2
    mask = mean > MASK_SHARE * mean.max()
    mask = mask if mask.any() else np.ones_like(mask)
    rows = unit_rows(queries - mean, mask)
    plain, flipped = (rows @ unit_rows(g - mean, mask).T for g in (gallery, gallery[:, ::-1]))
    best = np.maximum(plain, flipped)
    index = best.argmax(axis=1)
    at = np.arange(len(index)), index
    return Neighbours(index, flipped[at] > plain[at], best[at])


def radial_spectrum(volumes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power of each volume, in the bands of the feature set ``spectrum-v1``.

    Parameters
    ----------
    volumes : (N, I, J, K).

    Returns
    -------
    np.ndarray
        (24,) centres of the bands in cycles per voxel.
    np.ndarray
        (N, 24) log10 power.
    """
    shape = volumes.shape[1:]
    weights = projection(shape)[:-1].astype(np.float32)
    rows = [(log_power(volumes[row : row + 1]) @ weights.T)[0] for row in range(len(volumes))]
    edges = band_edges(shape)
    return (edges[1:] + edges[:-1]) / 2, np.array(rows) / np.log(10.0)


def slice_correlation(volumes: np.ndarray, max_lag: int) -> np.ndarray:
    """Mean correlation of axial slices that lie 1 to `max_lag` slices apart.

    Parameters
    ----------
    volumes : (N, I, J, K); the correlation is taken over pairs of slices that are not empty.
    max_lag : largest distance in slices, below K.

    Returns
    -------
    np.ndarray
        (N, max_lag); NaN where a volume has no such pair.
    """
    rows = []
    for volume in volumes:
        slices = volume.reshape(-1, volume.shape[2]).T
        slices = slices - slices.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(slices, axis=1)
        kept = norms > 0.05 * max(float(norms.max()), 1e-12)
        unit = slices / np.maximum(norms, 1e-12)[:, None]
        alike = unit @ unit.T
        alike[~(kept[:, None] & kept[None, :])] = np.nan
        diagonals = (np.diagonal(alike, lag) for lag in range(1, max_lag + 1))
        rows.append([_mean_or_nan(diagonal) for diagonal in diagonals])
    return np.array(rows)


def _mean_or_nan(values: np.ndarray) -> float:
    """Mean of the values that are no NaN."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
