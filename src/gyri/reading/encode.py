"""Take real and synthetic volumes through identical steps, so that only anatomy can tell them.

Smooth, mask, window or match the histogram, round to 0..255: one function for both classes. What
depends on data (the common mask, the mean histogram) is measured on the real volumes and then
applied to all. Files are uncompressed NIfTI of one size, with one and the same header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gyri.cohort.nifti import write_volume
from gyri.errors import DataError
from gyri.reading.study import Encoding
from gyri.types import FWHM_PER_SIGMA, Grid

FLOOR = 0.08
"""Brain is brighter than this share of a volume's 99th percentile, or enclosed by what is."""
WINDOW = (0.5, 99.5)
LEVELS = 255
_PROBABILITIES = np.linspace(0, 1, 513)


@dataclass(frozen=True)
class Encoder:
    """The steps with what they measured on the real volumes.

    Parameters
    ----------
    settings : which steps.
    grid : of all volumes.
    mask : (I, J, K) voxels that are kept in every volume; None keeps each volume's own brain.
    quantiles : (513,) the mean histogram's quantiles in [0, 1]; None keeps each volume's own.
    """

    settings: Encoding
    grid: Grid
    mask: np.ndarray | None = None
    quantiles: np.ndarray | None = None

    @classmethod
    def fit(
        cls, settings: Encoding, grid: Grid, real: Callable[[], Iterable[np.ndarray]]
    ) -> Encoder:
        """Measure what the steps need.

        Parameters
        ----------
        real : gives the real volumes, (I, J, K) in [0, 1], once for each measurement.
        """
        mask = quantiles = None
        if settings.mask == "common":
            masks = [brain(_smoothed(volume, settings, grid)) for volume in real()]
            mask = np.mean(masks, axis=0) >= 0.5
        if settings.intensity == "matched":
            own = cls(settings, grid, mask)
            quantiles = np.mean([own._quantiles(volume) for volume in real()], axis=0)
        return cls(settings, grid, mask, quantiles)

    def _kept(self, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smoothed volume and the voxels (I, J, K) that are shown of it."""
        volume = _smoothed(volume, self.settings, self.grid)
        kept = brain(volume) if self.mask is None else self.mask
        if not kept.any():
            raise DataError("A volume is empty; every voxel is as dark as its background.")
        return volume, kept

    def _quantiles(self, volume: np.ndarray) -> np.ndarray:
        volume, kept = self._kept(volume)
        quantiles: np.ndarray = np.quantile(_windowed(volume[kept]), _PROBABILITIES)
        return quantiles

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        """Encode one volume.

        Parameters
        ----------
        volume : (I, J, K) float, in [0, 1].

        Returns
        -------
        numpy.ndarray
            (I, J, K) uint8: 0 outside of what is kept, 1 to 255 inside.
        """
        volume, kept = self._kept(volume)
        values = _windowed(volume[kept])
        if self.quantiles is not None:
            values = np.interp(_ranks(volume, kept), _PROBABILITIES, self.quantiles)
        encoded = np.zeros(volume.shape, np.uint8)
        encoded[kept] = 1 + np.rint(values * (LEVELS - 1)).astype(np.uint8)
        return encoded

    def write(self, path: Path, encoded: np.ndarray) -> None:
        """Write an encoded volume: one header and one size for all."""
        write_volume(path, encoded, np.array(self.grid.affine), descrip="")


def brain(volume: np.ndarray) -> np.ndarray:
    """Return the largest bright object (I, J, K) with its holes filled."""
    from scipy.ndimage import binary_fill_holes, label

    bright = volume > FLOOR * np.percentile(volume, 99)
    parts, count = label(bright)
    if count > 1:
        bright = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    filled: np.ndarray = binary_fill_holes(bright)
    return filled


def _smoothed(volume: np.ndarray, settings: Encoding, grid: Grid) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    if not settings.smooth_fwhm_mm:
        return volume
    sigma = [settings.smooth_fwhm_mm / FWHM_PER_SIGMA / spacing for spacing in grid.spacing_mm]
    smooth: np.ndarray = gaussian_filter(volume, sigma)
    return smooth


def _windowed(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, WINDOW)
    windowed: np.ndarray = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return windowed


def _ranks(volume: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the ranks in (0, 1) of the kept voxels; of equal values the darker surroundings first.

    Exact histogram specification (Coltuc, Bolon and Chassery 2006): without an order among equal
    values, clipped or coarsely stored ones would leave a step that tells where they come from.
    """
    from scipy.ndimage import gaussian_filter

    order = np.lexsort((gaussian_filter(volume, 1.0)[kept], volume[kept]))
    ranks = np.empty(len(order))
    ranks[order] = (np.arange(len(order)) + 0.5) / len(order)
    return ranks
