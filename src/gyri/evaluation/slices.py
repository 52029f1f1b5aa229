"""What real slices of a brain are like: how they correlate, where they lie, how they flicker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features.extraction import num_workers

FloatArray = NDArray[np.float64]
LAGS_MM = (1.0, 2.0, 4.0, 8.0, 16.0)
DUPLICATE_GAP_MM = 6.0
DUPLICATE_PERCENTILE = 99.9
BAND_PERCENTILE = 99.0
ALIKE = 1 - 1e-6
"""Correlation above which two slices count as alike whatever TRAIN holds."""
PLATEAU_STEP = 0.25
"""Neighbours whose predicted positions differ by less, in slice spacings, are on a plateau."""
SLICE_SHARE = 0.25
"""A slice counts where its brain area reaches this share of the largest."""
MASK_SHARE = 0.05
SLICE_PIXELS = 24
SLICE_COMPONENTS, SQUARED_COMPONENTS = 60, 20
AXES = "IJK"
CRITERIA = ("profile", "duplicates", "position", "flicker")

Image = NDArray[np.float32]
Row = TypeVar("Row")


def slice_correlations(image: Image, mask: NDArray[np.bool_], axis: int) -> FloatArray:
    """Return (K, K) correlations between the slices of (I, J, K) along `axis`, inside `mask`.

    Slices are demeaned inside the mask and scaled to unit norm; an empty slice has zeros.
    """
    slices = np.moveaxis(image, axis, 0).reshape(image.shape[axis], -1)
    inside = np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1)
    area = np.maximum(inside.sum(1, keepdims=True), 1)
    centred = np.where(inside, slices, 0).astype(np.float32)
    centred = np.where(inside, centred - centred.sum(1, keepdims=True) / area, 0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-6)
    return np.asarray(unit @ unit.T, np.float64)


def profile(correlations: FloatArray, lags: Sequence[int]) -> FloatArray:
    """Return c(l), the mean correlation of slices `l` apart, for each lag in slices."""
    return np.array([np.diagonal(correlations, lag).mean() for lag in lags])


def lags_in_slices(spacing_mm: float, num_slices: int) -> list[int]:
    """Return the lags of 1, 2, 4, 8 and 16 mm in whole slices, without repeats."""
    lags = {max(1, round(lag / spacing_mm)) for lag in LAGS_MM}
    return sorted(lag for lag in lags if lag < num_slices)


def longest_plateau(predicted: FloatArray, step: float) -> int:
    """Return the most neighbouring slices whose predicted positions change by less than `step`."""
    longest = run = 1
    for change in np.abs(np.diff(predicted)):
        run = run + 1 if change < step else 1
        longest = max(longest, run)
    return longest


def position_statistics(
    predicted: FloatArray, true_mm: FloatArray, spacing_mm: float
) -> FloatArray:
    """Return slope, R^2, longest plateau in slices and share of steps backwards."""
    if predicted.std() == 0:
        return np.array([0.0, 0.0, float(len(predicted)), 0.0])
    slope = float(np.polyfit(true_mm, predicted, 1)[0])
    fit = float(np.corrcoef(true_mm, predicted)[0, 1]) ** 2
    plateau = longest_plateau(predicted, PLATEAU_STEP * spacing_mm)
    return np.array([slope, fit, float(plateau), float((np.diff(predicted) < 0).mean())])


def high_frequency_shares(image: Image) -> FloatArray:
    """Return, for each axis, the share of power at 0.25 to 0.5 cycles per voxel along it."""
    from scipy import fft

    power = np.abs(fft.rfftn(image)) ** 2
    power[0, 0, 0] = 0.0
    power[..., 1 : -1 if image.shape[2] % 2 == 0 else None] *= 2
    total = max(float(power.sum()), 1e-12)
    shares = []
    for axis, size in enumerate(image.shape):
        frequency = np.fft.rfftfreq(size) if axis == 2 else np.abs(np.fft.fftfreq(size))
        along = power.sum(axis=tuple(a for a in range(3) if a != axis))
        shares.append(float(along[frequency >= 0.25].sum()) / total)
    return np.array(shares)


@dataclass(frozen=True)
class SliceRegressor:
    """Predicts a slice's position in millimetres from its pixels.

    Ridge regression on whitened principal components and the products of the first of them:
    appearance is no linear function of position, for slices on both sides of the widest one are
    alike. The penalty is the number of terms a row.

    Parameters
    ----------
    centre : (P,) mean slice.
    axes : (P, q) principal components over their standard deviations.
    mean : (t,) of the terms, weights : (t,) and offset : of the regression.
    """

    centre: FloatArray
    axes: FloatArray
    mean: FloatArray
    weights: FloatArray
    offset: float

    @classmethod
    def fit(cls, slices: FloatArray, position_mm: FloatArray) -> SliceRegressor:
        """Fit to (n, P) slices at (n,) positions."""
        centre = slices.mean(0)
        centred = slices - centre
        values, vectors = np.linalg.eigh(centred.T @ centred / len(slices))
        kept = np.flatnonzero(values > 1e-9 * values[-1])[::-1][:SLICE_COMPONENTS]
        axes = vectors[:, kept] / np.sqrt(values[kept])
        terms = cls._terms(centred @ axes)
        mean, offset = terms.mean(0), float(position_mm.mean())
        terms -= mean
        gram = terms.T @ terms + terms.shape[1] * np.eye(terms.shape[1])
        weights = np.linalg.solve(gram, terms.T @ (position_mm - offset))
        return cls(centre, axes, mean, weights, offset)

    @staticmethod
    def _terms(scores: FloatArray) -> FloatArray:
        first, second = np.triu_indices(min(SQUARED_COMPONENTS, scores.shape[1]))
        return np.concatenate([scores, scores[:, first] * scores[:, second]], axis=1)

    def predict(self, slices: FloatArray) -> FloatArray:
        """Return (n,) positions of (n, P) slices."""
        terms = self._terms((slices - self.centre) @ self.axes) - self.mean
        return np.asarray(terms @ self.weights + self.offset)


def equal_share(slices: Image) -> float:
    """Return the share of (K, I, J) slices that equal an earlier one voxel by voxel.

    No two slices of a scan do, however near they are.
    """
    return 1 - len({part.tobytes() for part in slices}) / len(slices)


def small_slices(image: Image, axis: int) -> FloatArray:
    """Return (K, P) slices along `axis`, each pooled to at most 24 x 24 pixels."""
    slices = np.moveaxis(image, axis, 0)
    rows, columns = (max(1, -(-n // SLICE_PIXELS)) for n in slices.shape[1:])
    height, width = slices.shape[1] // rows, slices.shape[2] // columns
    cut = slices[:, : height * rows, : width * columns]
    pooled = cut.reshape(len(cut), height, rows, width, columns).mean((2, 4))
    return pooled.reshape(len(cut), -1).astype(np.float64)


@dataclass(frozen=True)
class Band:
    """Real values of a criterion's statistics and how far from them a real volume lies.

    Parameters
    ----------
    centre, spread : (q,) mean and standard deviation of TRAIN.
    limit : 99th percentile of the `deviation` of TRAIN and HOLD together: of one set of the usual
        size it would be one of the two largest values.
    """

    centre: FloatArray
    spread: FloatArray
    limit: float

    @classmethod
    def of(cls, train: FloatArray, hold: FloatArray) -> Band:
        """Fit to (N, q) statistics of TRAIN and (M, q) of HOLD."""
        centre = train.mean(0)
        spread = np.maximum(train.std(0, ddof=1), 1e-3 * (1e-6 + np.abs(centre)))
        real = cls(centre, spread, 0.0).deviation(np.concatenate([train, hold]))
        limit = np.percentile(real, BAND_PERCENTILE)
        return cls(centre, spread, float(limit))

    def deviation(self, statistics: FloatArray) -> FloatArray:
        """Return (N,) largest distance from the centre in standard deviations."""
        return np.asarray(np.abs((statistics - self.centre) / self.spread).max(1))

    def inside(self, statistics: FloatArray) -> NDArray[np.bool_]:
        """Say whether each volume lies within the real band."""
        return self.deviation(statistics) <= self.limit


class SliceModel:
    """What TRAIN says about the slices of a brain along three axes.

    Parameters
    ----------
    images : (N, I, J, K) of TRAIN.
    hold : (M, I, J, K) of HOLD, which no regressor has seen.
    spacing_mm : along I, J, K.

    Attributes
    ----------
    hold : statistics of HOLD, see `statistics`.
    """

    def __init__(self, images: Image, hold: Image, spacing_mm: tuple[float, float, float]) -> None:
        mean = images.mean(0)
        self.mask = mean > MASK_SHARE * mean.max()
        self.spacing_mm = spacing_mm
        self.slices: list[NDArray[np.int64]] = []
        for axis in range(3):
            area = self.mask.sum(axis=tuple(a for a in range(3) if a != axis))
            inside = np.flatnonzero(area >= SLICE_SHARE * area.max())
            self.slices.append(np.arange(inside[0], inside[-1] + 1))
        self.thresholds = [self._thresholds(images, axis) for axis in range(3)]
        self.regressors = self._regressors(images)
        self.hold = self.statistics(hold)
        self.bands = self._fit_bands(images)

    def _correlations(self, image: Image, axis: int) -> FloatArray:
        kept = self.slices[axis]
        return slice_correlations(image, self.mask, axis)[np.ix_(kept, kept)]

    def _far_lags(self, axis: int) -> range:
        gap = -(-DUPLICATE_GAP_MM // self.spacing_mm[axis])
        return range(max(1, int(gap)), len(self.slices[axis]))

    def _thresholds(self, images: Image, axis: int) -> FloatArray:
        """99.9th percentile over TRAIN of the correlation at each far lag."""
        all_correlations = np.stack(
            _parallel(lambda image: self._correlations(image, axis), images)
        )
        return np.array(
            [
                np.percentile(np.diagonal(all_correlations, lag, 1, 2), DUPLICATE_PERCENTILE)
                for lag in self._far_lags(axis)
            ]
        )

    def _regressors(self, images: Image) -> list[SliceRegressor]:
        found = []
        for axis, kept in enumerate(self.slices):
            slices = np.concatenate([small_slices(image, axis)[kept] for image in images])
            position = np.tile(kept * self.spacing_mm[axis], len(images))
            found.append(SliceRegressor.fit(slices, position))
        return found

    def _fit_bands(self, images: Image) -> dict[str, Band]:
        """Bands of the four criteria; positions of each half by regressors of the other half."""
        halves = [images[::2], images[1::2]]
        by_half = [
            self.statistics(half, self._regressors(other))
            for half, other in zip(halves, reversed(halves))
        ]
        return {
            name: Band.of(np.concatenate([half[name] for half in by_half]), self.hold[name])
            for name in CRITERIA
        }

    def statistics(
        self, images: Image, regressors: list[SliceRegressor] | None = None
    ) -> dict[str, FloatArray]:
        """Return (N, q) statistics of each criterion, the axes side by side."""
        used = regressors or self.regressors
        rows = _parallel(lambda image: self._row(image, used), images)
        return {name: np.stack([row[name] for row in rows]) for name in CRITERIA}

    def _row(self, image: Image, regressors: list[SliceRegressor]) -> dict[str, FloatArray]:
        profiles, duplicates, positions = [], [], []
        for axis, (kept, regressor) in enumerate(zip(self.slices, regressors)):
            correlations = self._correlations(image, axis)
            lags = lags_in_slices(self.spacing_mm[axis], len(kept))
            profiles.append(profile(correlations, lags))
            equal = equal_share(np.moveaxis(image, axis, 0)[kept])
            duplicates += [self._duplicate_rate(correlations, axis), equal]
            predicted = regressor.predict(small_slices(image, axis)[kept])
            true_mm = (kept * self.spacing_mm[axis]).astype(np.float64)
            positions.append(position_statistics(predicted, true_mm, self.spacing_mm[axis]))
        high = np.log(high_frequency_shares(image) + 1e-9)
        return {
            "profile": np.concatenate(profiles),
            "duplicates": np.array(duplicates),
            "position": np.concatenate(positions),
            "flicker": high - (high.sum() - high) / 2,
        }

    def _duplicate_rate(self, correlations: FloatArray, axis: int) -> float:
        """Share of slice pairs at least 6 mm apart that are more alike than in TRAIN."""
        above = pairs = 0
        for lag, threshold in zip(self._far_lags(axis), self.thresholds[axis]):
            values = np.diagonal(correlations, lag)
            above += int((values > min(threshold, ALIKE)).sum())
            pairs += len(values)
        return above / max(pairs, 1)

    def plateau(self, statistics: dict[str, FloatArray], axis: int) -> FloatArray:
        """Return (N,) longest plateau along an axis, in slices."""
        return statistics["position"][:, 4 * axis + 2]


def _parallel(function: Callable[[Image], Row], images: Image) -> list[Row]:
    with ThreadPoolExecutor(num_workers()) as pool:
        return list(pool.map(function, images))
