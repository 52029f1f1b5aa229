"""How much of each spatial frequency a volume holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features import FeatureSet, FloatArray
from gyri.evaluation.segment import Segmented
from gyri.registry import FEATURES

NUM_BANDS = 24
SLOPE_RANGE = (0.03, 0.35)
POWER_FLOOR = 1e-9
"""Added to the power per voxel: float32 noise of a volume in [0, 1] lies well below it."""


def radial_frequency(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Cycles per voxel of every mode that `scipy.fft.rfftn` returns for `shape`."""
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    return np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))


def _multiplicity(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """How many modes of the full transform each mode of the half transform stands for."""
    weight = np.full((*shape[:-1], shape[-1] // 2 + 1), 2.0)
    weight[..., 0] = 1.0
    if shape[-1] % 2 == 0:
        weight[..., -1] = 1.0
    return weight


def band_edges(shape: tuple[int, ...]) -> FloatArray:
    """Edges of `NUM_BANDS` equal bands in cycles per voxel, the first holding the lowest modes."""
    return np.linspace(0.5 / min(shape), 0.5, NUM_BANDS + 1)


def projection(shape: tuple[int, ...]) -> FloatArray:
    """Return (NUM_BANDS + 1, modes) weights that turn log-power into bands and the slope.

    Band rows average over the band. The last row is minus the least-squares slope of log-power
    over log-frequency in `SLOPE_RANGE`, each mode one observation: P(k) ~ k^-alpha gives alpha.
    """
    k = radial_frequency(shape).ravel()
    weight = _multiplicity(shape).ravel()
    band = np.digitize(k, band_edges(shape)) - 1
    rows = np.zeros((NUM_BANDS + 1, k.size))
    for index in range(NUM_BANDS):
        member = np.where(band == index, weight, 0.0)
        rows[index] = member / max(member.sum(), 1.0)
    inside = (k >= SLOPE_RANGE[0]) & (k <= SLOPE_RANGE[1])
    log_k = np.log(np.where(k > 0, k, 1.0))
    w = np.where(inside, weight, 0.0)
    centred = w * (log_k - (w @ log_k) / w.sum())
    rows[-1] = -centred / (centred @ log_k)
    return rows


def log_power(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, modes) log of the power per voxel of (N, I, J, K) images."""
    from scipy import fft

    spectrum = fft.rfftn(images.astype(np.float32, copy=False), axes=(1, 2, 3))
    power = (spectrum.real**2 + spectrum.imag**2) / np.prod(images.shape[1:])
    return np.log(power + POWER_FLOOR).reshape(len(images), -1).astype(np.float32)


@FEATURES.register("spectrum-v1")
class Spectrum(FeatureSet):
    """Radially averaged log-power in 24 bands and the slope over 0.03-0.35 cycles per voxel.

    Sees blur and noise. Blind to where anything is: volumes with TRAIN's amplitudes and random
    phases score as real ones.
    """

    name = "spectrum-v1"
    blind_to = ("phase_random",)

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[tuple[int, ...], NDArray[np.float32]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The 24 bands from low to high, then the slope."""
        return (*(f"band_{index:02d}" for index in range(NUM_BANDS)), "slope")

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, 25) features of the whole grid, background included."""
        shape = segmented.image.shape[1:]
        if shape not in self._weights:
            self._weights[shape] = projection(shape).astype(np.float32)
        weights = self._weights[shape]
        image = np.nan_to_num(segmented.image)
        return np.concatenate(
            [(log_power(image[row : row + 1]) @ weights.T) for row in range(len(image))]
        ).astype(np.float64)
