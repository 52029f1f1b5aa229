"""Whether a volume's slices belong together: repeated, shuffled and flickering slices."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import mean_interval, share_interval
from gyri.evaluation.features.extraction import num_workers
from gyri.evaluation.metrics import Evidence, FloatArray, Metric, Score, Study
from gyri.registry import METRICS

LAGS_MM = (1.0, 2.0, 4.0, 8.0, 16.0)
DUPLICATE_GAP_MM = 6.0
DUPLICATE_PERCENTILE = 99.9
BAND_PERCENTILE = 99.0
PLATEAU_STEP = 0.25
"""Neighbours whose predicted positions differ by less, in slice spacings, are on a plateau."""
SLICE_SHARE = 0.25
"""A slice counts where its brain area reaches this share of the largest."""
MASK_SHARE = 0.05
SLICE_PIXELS = 24
SLICE_COMPONENTS = 60
RIDGE = 1e-2
AXES = "IJK"
CRITERIA = ("profile", "duplicates", "position", "flicker")

Image = NDArray[np.float32]


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
    """Predicts a slice's position in millimetres from its pixels: ridge on principal components.

    Parameters
    ----------
    centre : (P,) mean slice.
    axes : (P, q) principal components.
    weights : (q,), offset : of the ridge regression.
    """

    centre: FloatArray
    axes: FloatArray
    weights: FloatArray
    offset: float

    @classmethod
    def fit(cls, slices: FloatArray, position_mm: FloatArray) -> SliceRegressor:
        """Fit to (n, P) slices at (n,) positions."""
        centre = slices.mean(0)
        centred = slices - centre
        values, vectors = np.linalg.eigh(centred.T @ centred / len(slices))
        axes = vectors[:, ::-1][:, :SLICE_COMPONENTS]
        scores = centred @ axes
        penalty = RIDGE * values[::-1][: axes.shape[1]].mean() * len(slices)
        offset = float(position_mm.mean())
        gram = scores.T @ scores + penalty * np.eye(axes.shape[1])
        return cls(centre, axes, np.linalg.solve(gram, scores.T @ (position_mm - offset)), offset)

    def predict(self, slices: FloatArray) -> FloatArray:
        """Return (n,) positions of (n, P) slices."""
        return np.asarray((slices - self.centre) @ self.axes @ self.weights + self.offset)


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
    """Real values of a criterion's statistics and how far from them a real volume lies."""

    centre: FloatArray
    spread: FloatArray
    limit: float

    @classmethod
    def of(cls, statistics: FloatArray) -> Band:
        """Fit to (N, q) statistics of TRAIN."""
        centre = statistics.mean(0)
        spread = np.maximum(statistics.std(0, ddof=1), 1e-3 * (1e-6 + np.abs(centre)))
        band = cls(centre, spread, 0.0)
        return cls(
            centre, spread, float(np.percentile(band.deviation(statistics), BAND_PERCENTILE))
        )

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
    spacing_mm : along I, J, K.
    """

    def __init__(self, images: Image, spacing_mm: tuple[float, float, float]) -> None:
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
            name: Band.of(np.concatenate([half[name] for half in by_half])) for name in CRITERIA
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
            duplicates.append(self._duplicate_rate(correlations, axis))
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
        """Share of slice pairs at least 6 mm apart that are more alike than in TRAIN, or equal."""
        above = pairs = 0
        for lag, threshold in zip(self._far_lags(axis), self.thresholds[axis]):
            values = np.diagonal(correlations, lag)
            above += int((values > min(threshold, 1 - 1e-6)).sum())
            pairs += len(values)
        return above / max(pairs, 1)

    def plateau(self, statistics: dict[str, FloatArray], axis: int) -> FloatArray:
        """Return (N,) longest plateau along an axis, in slices."""
        return statistics["position"][:, 4 * axis + 2]


def _parallel(function: Any, images: Image) -> list[Any]:
    with ThreadPoolExecutor(num_workers()) as pool:
        return list(pool.map(function, images))


@METRICS.register("coherence")
class Coherence(Metric):
    """Share of volumes whose slices belong together as a real volume's do, along three axes.

    Higher is better; read it beside the ceiling, the share of HOLD inside TRAIN's bands. Four
    criteria: the profile of slice correlation over distance, pairs of distant slices that are
    too alike, the position that a regressor reads off each slice (slope, fit, longest plateau,
    steps backwards), and flicker of one axis against the others. A volume passes a criterion
    where no statistic lies farther from TRAIN's mean, in standard deviations, than in 99 % of
    TRAIN; positions in TRAIN are cross-fitted. Slice correlation does not see white noise: the
    share inside the spectrum's band stands beside it. Works from one volume.
    """

    name = "coherence"
    family = "coherence"
    ceiling = "HOLD"
    min_generated = 1
    counts_failures = True
    needs_unseen = False

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the share coherent, the share by criterion, and the mean longest plateau."""
        inside, statistics = self._judge(generated, study)
        n = f"n={len(study.train)}/{len(generated)}"
        words = {
            "all": "coherent volumes",
            "profile": "slice correlation as in real volumes",
            "duplicates": "no repeated slices",
            "position": "slices at their places",
            "flicker": "no flicker between slices",
            "spectrum": "spatial frequencies as in real volumes",
        }
        scores = []
        for name, passed in inside.items():
            low, high = share_interval(int(passed.sum()), len(passed))
            scores.append(
                Score(
                    key="coherence" if name == "all" else f"coherence/{name}",
                    name=f"coherence[{name},train-99,{n}]",
                    metric="coherence",
                    features="spectrum-v1" if name == "spectrum" else None,
                    label=words[name],
                    value=float(passed.mean()),
                    low=low,
                    high=high,
                    n_real=len(study.train),
                    n_generated=len(passed),
                    better="higher",
                    note="slices only; noise is seen by the spectrum" if name == "all" else "",
                )
            )
        return [*scores, self._plateau(generated, statistics, study, n)]

    def _plateau(
        self, generated: Evidence, statistics: dict[str, FloatArray], study: Study, n: str
    ) -> Score:
        model = self._model(study)
        longest = np.max([model.plateau(statistics, axis) for axis in range(3)], axis=0)
        real = study.once("coherence/hold", lambda: model.statistics(_first(study.hold)))
        target = np.max([model.plateau(real, axis) for axis in range(3)], axis=0)
        low, high = mean_interval(
            longest, generated.volumes.ids, study.resamples, study.rng("coherence", "plateau")
        )
        return Score(
            key="coherence/plateau",
            name=f"plateau[longest-of-3-axes,{n}]",
            metric="coherence",
            features=None,
            label="longest run of slices at one place",
            value=float(longest.mean()),
            low=low,
            high=high,
            n_real=len(study.train),
            n_generated=len(longest),
            better="near",
            target=float(target.mean()),
            unit="slices",
            note=f"longest of all samples: {longest.max():.0f}",
        )

    def _model(self, study: Study) -> SliceModel:
        model: SliceModel = study.once(
            "coherence/model",
            lambda: SliceModel(_first(study.train), study.train.volumes.grid.spacing_mm),
        )
        return model

    def _judge(
        self, evidence: Evidence, study: Study
    ) -> tuple[dict[str, NDArray[np.bool_]], dict[str, FloatArray]]:
        model = self._model(study)
        statistics = model.statistics(_first(evidence))
        inside = {name: model.bands[name].inside(statistics[name]) for name in CRITERIA}
        inside = {name: passed & ~evidence.failed for name, passed in inside.items()}
        band = study.once(
            "coherence/spectrum", lambda: Band.of(study.train.features["spectrum-v1"])
        )
        spectrum = band.inside(evidence.features["spectrum-v1"]) & ~evidence.failed
        every = np.logical_and.reduce(list(inside.values()))
        return {"all": every, **inside, "spectrum": spectrum}, statistics

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return whether each sample is coherent."""
        return {"coherent": [bool(v) for v in self._judge(generated, study)[0]["all"]]}


def _first(evidence: Evidence) -> Image:
    return evidence.volumes.volumes[:, 0]
