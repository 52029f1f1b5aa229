"""First-order and co-occurrence statistics inside the brain, on several scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features import FeatureSet, FloatArray
from gyri.evaluation.segment import BoolArray, Segmented, bounding_box
from gyri.registry import FEATURES

LOG_SCALES_MM = (2.0, 4.0)
NUM_LEVELS = 32
LEVEL_RANGE = (0.5, 99.5)
"""TRAIN percentiles between which the levels lie; values beyond fall into the end levels."""
# One of each pair of opposite directions among the 26 neighbours.
DIRECTIONS = tuple(
    (i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) > (0, 0, 0)
)
FIRST_ORDER_NAMES = (
    "energy",
    "entropy",
    "uniformity",
    "minimum",
    "percentile_10",
    "median",
    "percentile_90",
    "maximum",
    "interquartile_range",
    "range",
    "mean",
    "mean_absolute_deviation",
    "robust_mean_absolute_deviation",
    "root_mean_square",
    "standard_deviation",
    "variance",
    "skewness",
    "kurtosis",
)
GLCM_NAMES = (
    "autocorrelation",
    "joint_average",
    "cluster_prominence",
    "cluster_shade",
    "cluster_tendency",
    "contrast",
    "correlation",
    "difference_average",
    "difference_entropy",
    "difference_variance",
    "joint_energy",
    "joint_entropy",
    "information_correlation_1",
    "information_correlation_2",
    "inverse_difference",
    "inverse_difference_normalised",
    "inverse_difference_moment",
    "inverse_difference_moment_normalised",
    "inverse_variance",
    "maximum_probability",
    "sum_entropy",
    "sum_of_squares",
)


def _entropy(probability: NDArray[np.floating]) -> float:
    p = probability[probability > 0]
    return float(-(p * np.log2(p)).sum())


def first_order(values: FloatArray, levels: NDArray[np.int64]) -> FloatArray:
    """Return the 18 first-order features of in-mask `values`; histogram ones from `levels`."""
    p10, p25, median, p75, p90 = np.percentile(values, [10, 25, 50, 75, 90])
    mean, variance = values.mean(), values.var()
    centred = values - mean
    inner = values[(values >= p10) & (values <= p90)]
    robust = inner if inner.size else values  # Of two voxels neither lies between.
    p = np.bincount(levels, minlength=NUM_LEVELS) / levels.size
    squared = centred * centred
    third, fourth = (squared @ centred) / values.size, (squared @ squared) / values.size
    return np.array(
        [
            values @ values,
            _entropy(p),
            (p**2).sum(),
            values.min(),
            p10,
            median,
            p90,
            values.max(),
            p75 - p25,
            np.ptp(values),
            mean,
            np.abs(centred).mean(),
            np.abs(robust - robust.mean()).mean(),
            np.sqrt(values @ values / values.size),
            np.sqrt(variance),
            variance,
            third / variance**1.5 if variance > 0 else 0.0,
            fourth / variance**2 if variance > 0 else 0.0,
        ]
    )


def co_occurrence(levels: NDArray[np.uint8], mask: BoolArray) -> FloatArray:
    """Return the symmetric grey-level co-occurrence matrix, merged over 13 directions.

    Parameters
    ----------
    levels : (I, J, K) in 0 .. NUM_LEVELS - 1; only pairs with both voxels in `mask` count.

    Returns
    -------
    (NUM_LEVELS, NUM_LEVELS), sums to 1; all zeros where no pair exists.
    """
    base = NUM_LEVELS + 1
    coded = np.where(mask, levels, NUM_LEVELS).astype(np.int16)
    counts = np.zeros(base * base, np.int64)
    for direction in DIRECTIONS:
        here = tuple(slice(max(0, -d), coded.shape[a] - max(0, d)) for a, d in enumerate(direction))
        there = tuple(
            slice(max(0, d), coded.shape[a] - max(0, -d)) for a, d in enumerate(direction)
        )
        pairs = coded[here] * np.int16(base) + coded[there]
        counts += np.bincount(pairs.ravel(), minlength=base * base)
    matrix = counts.reshape(base, base)[:NUM_LEVELS, :NUM_LEVELS].astype(np.float64)
    matrix += matrix.T
    return matrix / max(matrix.sum(), 1.0)


def glcm_features(p: FloatArray) -> FloatArray:
    """Return the 22 features of a co-occurrence matrix (Haralick 1973; IBSI names)."""
    n = len(p)
    level = np.arange(1, n + 1, dtype=np.float64)
    i, j = np.meshgrid(level, level, indexing="ij")
    px = p.sum(1)
    mu = float(px @ level)
    variance = float(px @ (level - mu) ** 2)
    gap = np.abs(i - j)
    p_gap = np.bincount(gap.astype(int).ravel(), p.ravel(), n).astype(np.float64)
    p_sum = np.bincount((i + j).astype(int).ravel(), p.ravel()).astype(np.float64)
    steps = np.arange(n, dtype=np.float64)
    gap_mean = float(p_gap @ steps)
    around = i + j - 2 * mu
    autocorrelation = float((p * i * j).sum())
    return np.array(
        [
            autocorrelation,
            mu,
            (p * around**4).sum(),
            (p * around**3).sum(),
            (p * around**2).sum(),
            (p * gap**2).sum(),
            (autocorrelation - mu**2) / variance if variance > 0 else 1.0,
            gap_mean,
            _entropy(p_gap),
            p_gap @ (steps - gap_mean) ** 2,
            (p**2).sum(),
            _entropy(p),
            *_information_correlations(p, px),
            (p / (1 + gap)).sum(),
            (p / (1 + gap / n)).sum(),
            (p / (1 + gap**2)).sum(),
            (p / (1 + (gap / n) ** 2)).sum(),
            (p_gap[1:] / steps[1:] ** 2).sum(),
            p.max(),
            _entropy(p_sum),
            variance,
        ]
    )


def _information_correlations(p: FloatArray, px: FloatArray) -> tuple[float, float]:
    outer = np.outer(px, px)
    seen = outer > 0
    hx, hxy = _entropy(px), _entropy(p)
    hxy1 = float(-(p[seen] * np.log2(outer[seen])).sum())
    hxy2 = float(-(outer[seen] * np.log2(outer[seen])).sum())
    first = (hxy - hxy1) / hx if hx > 0 else 0.0
    return first, float(np.sqrt(max(0.0, 1.0 - np.exp(-2.0 * (hxy2 - hxy)))))


def laplacian_of_gaussian(
    image: NDArray[np.float32], spacing_mm: tuple[float, float, float], scale_mm: float
) -> NDArray[np.float32]:
    """Return the scale-normalised Laplacian of Gaussian of an (I, J, K) image.

    Computed in the Fourier domain, -(2 pi f s)^2 exp(-2 pi^2 f^2 s^2), hence periodic at the
    grid's border, where skull-stripped volumes are zero.
    """
    from scipy import fft

    shape = image.shape
    axes = [np.fft.fftfreq(n, d) for n, d in zip(shape[:-1], spacing_mm)]
    axes.append(np.fft.rfftfreq(shape[-1], spacing_mm[-1]))
    squared = sum(
        (f**2).reshape([-1 if a == b else 1 for b in range(3)]).astype(np.float32)
        for a, f in enumerate(axes)
    )
    s = (2 * np.pi * scale_mm) ** 2 * squared
    transfer = -s * np.exp(-s / 2)
    return np.asarray(fft.irfftn(fft.rfftn(image) * transfer, s=shape), np.float32)


@FEATURES.register("radiomics-v1")
class Radiomics(FeatureSet):
    """18 first-order and 22 co-occurrence features inside the mask, original and LoG 2 and 4 mm.

    The 32 levels of each image lie between TRAIN's 0.5 and 99.5 percentiles. A LoG scale below
    the voxel spacing cannot be sampled and is left out: three images at 2 mm, two at 4 mm, one
    at 8 mm. Co-occurrences are merged over 13 directions one voxel apart.
    """

    name = "radiomics-v1"

    @property
    def scales_mm(self) -> tuple[float, ...]:
        """Scales of the images; 0 is the original."""
        return tuple(float(s) for s in self.state["scales_mm"])

    @property
    def names(self) -> tuple[str, ...]:
        """40 names for each image."""
        return tuple(
            f"{'original' if scale == 0 else f'log_{scale:g}mm'}.{name}"
            for scale in self.scales_mm
            for name in (*FIRST_ORDER_NAMES, *(f"glcm_{n}" for n in GLCM_NAMES))
        )

    def fit(self, train: Segmented) -> None:
        """Fix the levels of every image on TRAIN."""
        coarsest = max(train.spacing_mm)
        scales = [0.0, *(s for s in LOG_SCALES_MM if s >= coarsest)]
        ranges = []
        for scale in scales:
            inside = [
                self._image(train, row, scale)[train.mask[row]][::7]
                for row in range(len(train))
                if train.mask[row].any()
            ]
            pooled = np.concatenate(inside) if inside else np.array([0.0, 1.0])
            ranges.append(np.percentile(pooled, LEVEL_RANGE))
        self.state = {"scales_mm": np.array(scales), "ranges": np.array(ranges)}

    def _image(self, segmented: Segmented, row: int, scale: float) -> NDArray[np.float32]:
        image = segmented.image[row]
        if scale == 0:
            return image
        return laplacian_of_gaussian(image, segmented.spacing_mm, scale)

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, 40 * images); an empty mask gives zeros."""
        rows = [self._row(segmented, row) for row in range(len(segmented))]
        return np.array(rows).reshape(len(segmented), len(self.names))

    def _row(self, segmented: Segmented, row: int) -> FloatArray:
        mask = segmented.mask[row]
        if not mask.any():
            return np.zeros(len(self.names))
        box = bounding_box(mask)
        parts = []
        for scale, (low, high) in zip(self.scales_mm, self.state["ranges"]):
            image = self._image(segmented, row, scale)[box]
            width = max(high - low, 1e-12)
            levels = np.clip((image - low) * (NUM_LEVELS / width), 0, NUM_LEVELS - 1)
            levels = levels.astype(np.uint8)
            values = image[mask[box]].astype(np.float64)
            parts.append(first_order(values, levels[mask[box]].astype(np.int64)))
            parts.append(glcm_features(co_occurrence(levels, mask[box])))
        return np.concatenate(parts)
