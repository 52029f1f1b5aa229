"""Intensities of tissues: classes, mixtures of two in a voxel, gain and bias field.

A brain's histogram is explained by three classes and by voxels that hold two of them: components
whose means lie between those of the pure classes (Santago and Gage 1993, IEEE TMI 12:566), so
that neither class is widened by them. A volume's gain and its smooth bias field are found with
its classes, in turn (Wells et al. 1996, IEEE TMI 15:429): without that, half of the white matter
of a scan by a surface coil is darker than the grey matter elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Values = NDArray[np.float32]

CSF, GM, WM = 1, 2, 3
"""Label values; 0 is background."""

# Darkest to brightest class by the channel's contrast.
CLASS_ORDER = {
    "T1w": (CSF, GM, WM),
    "T1c": (CSF, GM, WM),
    "T2w": (WM, GM, CSF),
    "FLAIR": (CSF, WM, GM),
}
NUM_BINS = 256
MAX_INTENSITY = 2.5
CENTRES = (np.arange(NUM_BINS) + 0.5) * MAX_INTENSITY / NUM_BINS
"""Histogram bins of aligned intensities: 1 is about a brain's median."""
MIXED_FRACTIONS = np.array([0.2, 0.4, 0.6, 0.8])
PURE, CHAIN = np.eye(3), ((0, 1), (1, 2))
FRACTIONS = np.concatenate(
    [PURE, *([(1 - f) * PURE[a] + f * PURE[b] for f in MIXED_FRACTIONS] for a, b in CHAIN)]
)
"""(11, 3) fractions of the classes in each component: pure, dark-middle, middle-bright."""
GROUP = np.repeat(np.arange(5), (1, 1, 1, len(MIXED_FRACTIONS), len(MIXED_FRACTIONS)))
"""(11,) which of the five weights a component belongs to."""
LOG_STEP, SHIFTS = 0.005, 70
LOG_RANGE = (-4.0, 1.0)
LOG_CENTRES = np.arange(LOG_RANGE[0] + LOG_STEP / 2, LOG_RANGE[1], LOG_STEP)
ALIGNMENT_ROUNDS = 4
ALIGNMENT_VOXELS = 20_000
PRIOR = 0.25
EM_STEPS = 40
VARIANCE_FLOOR = 1e-4
BIAS_CELL_MM = 8.0
BIAS_SMOOTHNESS_MM = 20.0
BIAS_ROUNDS = 8
# Residuals under a mixture understate the field; longer steps make up for it.
BIAS_STEP = 1.5
BIAS_STRIDE = 3
# Share of the brain's mean weight that pulls the field to 0 where there is little brain.
BIAS_PRIOR = 0.02


@dataclass(frozen=True)
class TissueModel:
    """Intensity classes of TRAIN after its gains are aligned; the prior of every volume's mixture.

    Parameters
    ----------
    means, variances, weights : (3,) of the pure classes in ascending order of mean.
    order : label of each class in that order.
    mixed : (2,) weights of voxels that hold the darkest and the middle, the middle and the
        brightest class.
    """

    means: FloatArray
    variances: FloatArray
    weights: FloatArray
    order: tuple[int, int, int] = (CSF, GM, WM)
    mixed: FloatArray = field(default_factory=lambda: np.full(2, 0.1))

    def joint(self, x: NDArray[np.floating]) -> FloatArray:
        """Return (..., 11) joint densities of aligned intensities and components."""
        weights = np.concatenate([self.weights, self.mixed])[GROUP] / np.bincount(GROUP)[GROUP]
        means, variances = FRACTIONS @ self.means, FRACTIONS @ self.variances
        exponent = -0.5 * (np.asarray(x)[..., None] - means) ** 2 / variances
        return np.asarray((weights + 1e-12) / np.sqrt(2 * np.pi * variances) * np.exp(exponent))


def fit_mixture(counts: FloatArray, start: TissueModel, prior: TissueModel | None) -> TissueModel:
    """Fit pure and mixed classes to a histogram over `CENTRES` (MAP by EM).

    Parameters
    ----------
    counts : (NUM_BINS,) histogram of aligned intensities.
    start : where the iteration starts.
    prior : centre of the conjugate prior of means and variances, worth `PRIOR` times the
        observations; None is maximum likelihood. Weights have no prior: they are what is measured.
    """
    model, centre = start, start if prior is None else prior
    pseudo = (0.0 if prior is None else PRIOR) * counts.sum() * centre.weights
    for _ in range(EM_STEPS):
        joint = model.joint(CENTRES) + 1e-300
        share = counts[:, None] * joint / joint.sum(1, keepdims=True)
        mass = share.sum(0)
        precise = FRACTIONS / (FRACTIONS @ model.variances)[:, None]
        scale = pseudo / model.variances
        left = (FRACTIONS * mass[:, None]).T @ precise + np.diag(scale + 1e-9)
        means = np.linalg.solve(left, precise.T @ (share.T @ CENTRES) + scale * centre.means)
        spread = (share * (CENTRES[:, None] - FRACTIONS @ means) ** 2).sum(0)
        expected = pseudo * (centre.variances + (means - centre.means) ** 2)
        total = FRACTIONS.T @ mass + pseudo + 1e-9
        variances = (FRACTIONS.T @ spread + expected) / total + VARIANCE_FLOOR
        weights = np.bincount(GROUP, mass) / mass.sum()
        rank = np.argsort(means)
        model = TissueModel(
            means[rank], variances[rank], weights[:3][rank], start.order, weights[3:]
        )
    return model


def histogram(values: NDArray[np.floating], scale: float = 1.0) -> FloatArray:
    """Return (NUM_BINS,) counts of values over `scale`."""
    counts, _ = np.histogram(values, bins=NUM_BINS, range=(0.0, scale * MAX_INTENSITY))
    return counts.astype(np.float64)


def bins_of(values: Values) -> NDArray[np.int64]:
    """Return the bin of each aligned value; beyond the last bin is in the last."""
    return (values * np.float32(NUM_BINS / MAX_INTENSITY)).astype(np.int64).clip(0, NUM_BINS - 1)


def align_intensity(
    values: NDArray[np.floating], model: TissueModel, start: float | None = None
) -> float:
    """Return the scale by which in-mask `values` are divided to lie as TRAIN's classes do.

    Scans differ in gain, and one bright remnant of the skull shifts any percentile: the scale is
    the one under which the class mixture explains the histogram of logarithms best, searched in
    steps of 0.5 % up to 35 % around `start` (the median where none is given).
    """
    centre = float(np.median(values)) if start is None else start
    if not centre > 0:
        return 1.0
    values = values[:: max(1, values.size // ALIGNMENT_VOXELS)]
    logs = np.log(np.maximum(values / centre, 1e-9)).clip(LOG_CENTRES[0], LOG_CENTRES[-1])
    counts, _ = np.histogram(logs, bins=len(LOG_CENTRES), range=LOG_RANGE)
    likelihood = np.log(model.joint(np.exp(LOG_CENTRES)).sum(1) + 1e-6)
    # Window k of the padded likelihood is the likelihood of values divided by exp(shift k).
    padded = np.pad(likelihood, SHIFTS, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(LOG_CENTRES))
    shifts = LOG_STEP * np.arange(SHIFTS, -SHIFTS - 1, -1)
    return centre * float(np.exp(shifts[np.argmax(windows @ counts - values.size * shifts)]))


class BiasField:
    """A smooth gain over a brain, kept on cells of about 8 mm, with a geometric mean of 1.

    Parameters
    ----------
    mask : (I, J, K) of the brain.
    spacing_mm : along I, J, K.
    """

    def __init__(self, mask: BoolArray, spacing_mm: Sequence[float]) -> None:
        self.steps = [max(1, round(BIAS_CELL_MM / spacing)) for spacing in spacing_mm]
        self.sigma = [BIAS_SMOOTHNESS_MM / (n * s) for n, s in zip(self.steps, spacing_mm)]
        self.shape = [-(-size // step) for size, step in zip(mask.shape, self.steps)]
        self.places = np.stack(np.nonzero(mask))
        some = self.places[:, ::BIAS_STRIDE]
        self.cell = np.ravel_multi_index(
            tuple(place // step for place, step in zip(some, self.steps)), tuple(self.shape)
        )
        self.log_gain = np.zeros(self.shape)

    def divide(self, values: Values, stride: int = 1) -> Values:
        """Return every `stride`-th of the mask's values without the gain."""
        from scipy import ndimage

        if not self.log_gain.any():
            return values[::stride]
        steps = np.array(self.steps, np.float32)[:, None]
        cells = (self.places[:, ::stride] + np.float32(0.5)) / steps - np.float32(0.5)
        gain = ndimage.map_coordinates(
            np.exp(-self.log_gain), cells, np.float32, order=1, mode="nearest"
        )
        return np.asarray(values[::stride] * gain)

    def update(self, residual: Values, weight: Values) -> None:
        """Move the field by the weighted mean of log residuals around each cell.

        Parameters
        ----------
        residual, weight : of every `BIAS_STRIDE`-th voxel.
        """
        from scipy import ndimage

        sums = [
            np.bincount(self.cell, w, int(np.prod(self.shape))).reshape(self.shape)
            for w in (weight * residual, weight)
        ]
        least = BIAS_PRIOR * sums[1][sums[1] > 0].mean()
        above, below = (ndimage.gaussian_filter(s, self.sigma, mode="constant") for s in sums)
        self.log_gain += BIAS_STEP * above / (below + least)
        self.log_gain -= (self.log_gain * sums[1]).sum() / sums[1].sum()


def flatten(values: Values, bias: BiasField, model: TissueModel, rounds: int) -> Values:
    """Return a volume's in-mask values (n,) without bias field and gain.

    The field is the one under which `model` explains the values; the volume's own classes are
    fitted afterwards, because classes and field that both move can drive each other away.

    Parameters
    ----------
    values : (n,) in-mask intensities.
    bias : the field as far as it is known; it is improved in place.
    """
    for _ in range(rounds):
        some = bias.divide(values, BIAS_STRIDE)
        bias.update(*_residuals(some / np.float32(align_intensity(some, model)), model))
    flat = bias.divide(values)
    return flat / np.float32(align_intensity(flat, model))


def _residuals(flat: Values, own: TissueModel) -> tuple[Values, Values]:
    """Return log of value over expected tissue mean, and its precision, at every voxel."""
    joint = own.joint(CENTRES) + 1e-300
    share = joint / joint.sum(1, keepdims=True)
    means, variances = FRACTIONS @ own.means, FRACTIONS @ own.variances
    precision = share / variances
    expected = (precision @ means) / precision.sum(1)
    weight = (precision @ means**2).astype(np.float32)
    residual = (np.log(CENTRES) - np.log(expected)).clip(-0.5, 0.5).astype(np.float32)
    bins = bins_of(flat)
    return residual[bins], weight[bins]
