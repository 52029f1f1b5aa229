"""Paired metrics: a volume against the very scan that it was made from.

Only a reconstruction has such a partner. Between unrelated volumes the same formulas reward the
mean image (`gyri.evaluation.metrics.unpaired`). Everything is measured inside the brain of the
original, so that the empty background raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gyri.errors import DataError
from gyri.evaluation.bootstrap import mean_interval
from gyri.evaluation.metrics.unpaired import DATA_RANGE, psnr
from gyri.evaluation.segment import brain_mask

SIGMA, RADIUS = 1.5, 5
"""Of SSIM's Gaussian window in voxels: 11 taps along each axis."""
C1, C2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2

Image = NDArray[np.float32]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PairedMetric:
    """A number for a volume and its original.

    Parameters
    ----------
    name, unit : for tables.
    better : its direction.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]


METRICS = (
    PairedMetric("psnr", "dB", "higher"),
    PairedMetric("ssim", "", "higher"),
    PairedMetric("mae", "", "lower"),
)


@dataclass(frozen=True)
class Original:
    """A scan that others are compared with, cut to its brain and what the window reaches.

    Parameters
    ----------
    image : (i, j, k) float32 in [0, 1].
    mask : (i, j, k) bool, the brain.
    mean, variance : under SSIM's window.
    window : where the cut lies in the whole grid.
    """

    image: Image
    mask: NDArray[np.bool_]
    mean: Image
    variance: Image
    window: tuple[slice, ...]

    @classmethod
    def of(cls, image: Image, spacing_mm: tuple[float, float, float], name: str) -> Original:
        """Prepare an (I, J, K) volume in [0, 1].

        Raises
        ------
        DataError
            If no brain is found in it.
        """
        mask = brain_mask(image, spacing_mm)[0]
        if not mask.any():
            raise DataError(f"No brain is found in {name}; look at its scan and prepare it again.")
        places = np.argwhere(mask)
        ends = zip(places.min(0), places.max(0))
        window = tuple(slice(max(0, a - RADIUS), b + RADIUS + 1) for a, b in ends)
        # What lies outside the brain is seen by the window only, as the mask decides what counts.
        cut = np.ascontiguousarray(image[window], np.float32)
        mean = _smooth(cut)
        return cls(cut, mask[window], mean, _smooth(cut * cut) - mean**2, window)

    def compare(self, volume: Image) -> dict[str, float]:
        """Return every one of `METRICS` of another (I, J, K) volume in [0, 1]."""
        other = np.asarray(volume[self.window], np.float32)
        error = (other - self.image)[self.mask].astype(np.float64)
        return {
            "psnr": float(psnr(np.array(np.mean(error**2)))),
            "ssim": float(self._ssim(other)[self.mask].mean(dtype=np.float64)),
            "mae": float(np.abs(error).mean()),
        }

    def _ssim(self, other: Image) -> Image:
        """Return the map of SSIM (Wang et al., 2004, IEEE TIP 13, 600, equation 13), in 3D.

        Gaussian window of 11^3 voxels. As torchmetrics, whose windows are not separable: there an
        80 x 96 x 80 volume takes seconds.
        """
        mean = _smooth(other)
        variance = _smooth(other * other) - mean**2
        covariance = _smooth(self.image * other) - self.mean * mean
        luminance = (2 * self.mean * mean + C1) / (self.mean**2 + mean**2 + C1)
        return np.asarray(
            luminance * (2 * covariance + C2) / (self.variance + variance + C2), np.float32
        )


def _smooth(image: Image) -> Image:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, SIGMA, mode="reflect", radius=RADIUS), np.float32)


@dataclass(frozen=True)
class PairedScore:
    """One metric of one arm over subjects.

    Parameters
    ----------
    arm : what was compared with the originals.
    anchor : True for what is compared for orientation only.
    channel : of the volumes.
    metric, unit, better : see `PairedMetric`.
    value : mean over subjects.
    low, high : 95 % interval, subjects resampled.
    n : subjects.
    """

    arm: str
    anchor: bool
    channel: str
    metric: str
    unit: str
    better: str
    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


Values = dict[str, dict[str, FloatArray]]
"""Arm -> metric -> (N,) one value a subject."""


def compare_arms(
    originals: Image,
    arms: Mapping[str, tuple[Image, NDArray[np.int64]]],
    spacing_mm: tuple[float, float, float],
    names: Sequence[str],
    progress: Callable[[], None] = lambda: None,
) -> Values:
    """Compare what stands beside each original with it.

    Parameters
    ----------
    originals : (N, I, J, K) in [0, 1].
    arms : name -> volumes (M, I, J, K) and (N,) which of them stands beside each original.
    names : of the N subjects, for messages.
    progress : called after each subject.

    Raises
    ------
    DataError
        If no brain is found in an original.
    """
    values: Values = {
        arm: {metric.name: np.empty(len(originals)) for metric in METRICS} for arm in arms
    }
    for row, image in enumerate(originals):
        original = Original.of(image, spacing_mm, names[row])
        for arm, (volumes, partner) in arms.items():
            for metric, value in original.compare(volumes[partner[row]]).items():
                values[arm][metric][row] = value
        progress()
    return values


def summarise(
    values: Values,
    anchors: Sequence[str],
    channel: str,
    names: Sequence[str],
    resamples: int,
    rng: Callable[[str], np.random.Generator],
) -> list[PairedScore]:
    """Return the mean of each arm and metric with its interval.

    Parameters
    ----------
    values : of `compare_arms`.
    anchors : arms that are there for orientation.
    rng : random numbers by name.
    """
    scores = []
    for arm, by_metric in values.items():
        for metric in METRICS:
            found = by_metric[metric.name]
            # The same resamples for every arm, so that intervals differ by the arms alone.
            low, high = mean_interval(found, names, resamples, rng(metric.name))
            scores.append(
                PairedScore(
                    arm, arm in anchors, channel, metric.name, metric.unit, metric.better,
                    float(found.mean()), low, high, len(found),
                )
            )  # fmt: skip
    return scores
