"""Diversity by multi-scale structural similarity between generated volumes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.bootstrap import centred_interval, draw_counts
from gyri.evaluation.features.extraction import num_workers
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.registry import METRICS

WINDOW = 11
SIGMA = 1.5
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = 0.01**2, 0.03**2
"""For intensities in [0, 1]."""
PAIRS = 1000
ANCHOR_PAIRS = 150

Image = NDArray[np.float32]


def num_scales(shape: tuple[int, ...]) -> int:
    """Return the largest S <= 5 whose coarsest grid still holds the window; 0 if none.

    An axis shorter than the window is no obstacle as long as two others hold it: see `ms_ssim`.
    """
    held = [size for size in shape if size >= WINDOW]
    if len(held) < 2:
        return 0
    return sum(1 for s in range(len(WEIGHTS)) if min(held) // 2**s >= WINDOW)


def _window(size: int) -> Image:
    """Return the (size - 10, size) matrix of a valid convolution with the Gaussian window.

    The identity for an axis that is shorter.
    """
    if size < WINDOW:
        return np.eye(size, dtype=np.float32)
    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    taps /= taps.sum()
    rows = size - WINDOW + 1
    matrix = np.zeros((rows, size), np.float32)
    for row in range(rows):
        matrix[row, row : row + WINDOW] = taps
    return matrix


def _smooth(image: Image) -> Image:
    """Convolve (I, J, K) with the Gaussian, valid part: one product with a matrix an axis."""
    i, j, k = image.shape
    out = image @ _window(k).T
    out = _window(j) @ out
    return np.asarray((_window(i) @ out.reshape(i, -1)).reshape(-1, *out.shape[1:]))


def halve(image: Image, steps: tuple[int, ...] = (2, 2, 2)) -> Image:
    """Average blocks of `steps` voxels; a last layer that fills no block is left out."""
    (a, i), (b, j), (c, k) = ((step, size // step) for step, size in zip(steps, image.shape))
    blocks = image[: a * i, : b * j, : c * k].reshape(i, a, j, b, k, c)
    return np.asarray(blocks.mean((1, 3, 5)))


@dataclass(frozen=True)
class Pyramid:
    """One volume at every scale with its local mean and mean square."""

    image: tuple[Image, ...]
    mean: tuple[Image, ...]
    square: tuple[Image, ...]

    @classmethod
    def of(cls, volume: Image, scales: int) -> Pyramid:
        """Build the pyramid of an (I, J, K) volume in [0, 1]."""
        images = [np.ascontiguousarray(volume, np.float32)]
        steps = tuple(2 if size >= WINDOW else 1 for size in volume.shape)
        for _ in range(scales - 1):
            images.append(halve(images[-1], steps))
        return cls(
            tuple(images),
            tuple(_smooth(image) for image in images),
            tuple(_smooth(image * image) for image in images),
        )


def similarities(x: Pyramid, y: Pyramid) -> tuple[list[float], float]:
    """Return the mean contrast-structure of every scale and the mean SSIM of the last."""
    contrast, ssim = [], 0.0
    for a, b, mean_a, mean_b, square_a, square_b in zip(
        x.image, y.image, x.mean, y.mean, x.square, y.square
    ):
        product = mean_a * mean_b
        var_a, var_b = square_a - mean_a**2, square_b - mean_b**2
        cs = (2 * (_smooth(a * b) - product) + C2) / (var_a + var_b + C2)
        contrast.append(float(cs.mean(dtype=np.float64)))
        luminance = (2 * product + C1) / (mean_a**2 + mean_b**2 + C1)
        ssim = float((luminance * cs).mean(dtype=np.float64))
    return contrast, ssim


def combine(contrast: list[float], ssim: float) -> float:
    """Return ``prod_{s<S} max(cs_s, 0)^w_s * max(ssim_S, 0)^w_S``, weights renormalised to S."""
    scales = len(contrast)
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    terms = np.array([*contrast[:-1], ssim]).clip(min=0)
    return float(np.prod(terms**weights))


def ms_ssim(x: Image, y: Image) -> float:
    """Return the multi-scale SSIM of two (I, J, K) volumes in [0, 1] (Wang 2003, in 3D).

    Window 11^3 with sigma 1.5, valid convolution, 2^3 average pooling, as many of the five
    scales as the grid holds. 1 for equal volumes, in [0, 1]. The whole grid counts, so that the
    empty background raises it: read it against real pairs on the same grid. Along an axis shorter
    than the window, as of a few slices, nothing is smoothed or pooled: the window is 11^2 there.

    Raises
    ------
    Refusal
        If two axes are shorter than the window.
    """
    scales = scales_of(x.shape)
    return combine(*similarities(Pyramid.of(x, scales), Pyramid.of(y, scales)))


def scales_of(shape: tuple[int, ...]) -> int:
    """Return `num_scales`, or refuse a grid that holds no window."""
    if scales := num_scales(shape):
        return scales
    raise Refusal(f"grid {shape} has two axes shorter than the window of {WINDOW} voxels.")


def draw_pairs(ids: list[str], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return up to `count` pairs of different subjects, all of them where there are fewer."""
    first, second = np.triu_indices(len(ids), 1)
    names = np.asarray(ids)
    different = np.flatnonzero(names[first] != names[second])
    chosen = different if len(different) <= count else rng.choice(different, count, replace=False)
    return [(int(first[c]), int(second[c])) for c in np.sort(chosen)]


def pairwise(images: Image, pairs: list[tuple[int, int]], scales: int) -> FloatArray:
    """Return the MS-SSIM of each pair of (N, I, J, K) volumes."""
    used = sorted({row for pair in pairs for row in pair})
    with ThreadPoolExecutor(num_workers()) as pool:
        built = pool.map(lambda row: Pyramid.of(images[row], scales), used)
        pyramids = dict(zip(used, built))
        values = pool.map(
            lambda pair: combine(*similarities(pyramids[pair[0]], pyramids[pair[1]])), pairs
        )
        return np.array(list(values))


@dataclass(frozen=True)
class Likeness:
    """How alike the volumes of one set are.

    Parameters
    ----------
    values : MS-SSIM of each pair.
    pairs : rows of the volumes of each pair.
    ids : subject of every volume.
    """

    values: FloatArray
    pairs: list[tuple[int, int]]
    ids: list[str]

    @classmethod
    def of(cls, volumes: VolumeSet, count: int, rng: np.random.Generator) -> Likeness:
        """Measure up to `count` pairs of different subjects.

        Raises
        ------
        Refusal
            If there is no such pair, or the grid holds no window.
        """
        pairs = draw_pairs(volumes.ids, count, rng)
        if not pairs:
            raise Refusal("there is no pair of different subjects.")
        images = volumes.volumes[:, 0]
        return cls(pairwise(images, pairs, scales_of(images.shape[1:])), pairs, volumes.ids)

    @property
    def mean(self) -> float:
        """Mean over pairs."""
        return float(self.values.mean())

    def resampled(self, resamples: int, rng: np.random.Generator) -> FloatArray:
        """Return (R,) means over resamples of the volumes."""
        counts = draw_counts(self.ids, resamples, rng)
        first, second = np.array(self.pairs).T
        weights = counts[:, first] * counts[:, second]
        with np.errstate(invalid="ignore"):
            return np.asarray(weights @ self.values / weights.sum(1))


@METRICS.register("msssim")
class Diversity(Metric):
    """Mean MS-SSIM between generated volumes, and its difference from real pairs.

    Best near the value of HOLD pairs; a difference above 0.02 means too little diversity, below
    -0.02 with a poor Frechet distance it means noise. 1,000 seeded pairs of different subjects;
    the interval resamples volumes. S, the number of scales that the grid holds, is in the name.
    Needs two volumes and two axes of 11 voxels. Blind to how real a volume is.
    """

    name = "msssim"
    sees: ClassVar = {"msssim/*": ("+blur", "-noise", "+mode_dropping")}
    blind_to = "how real a volume is: repeated slices, wrong contrast and flips leave it as it is"
    family = "diversity"
    needs_unseen = False

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the mean similarity and its difference from HOLD's."""
        made, real = self._likeness(generated, study), self._likeness(study.hold, study)
        low = high = NAN
        if study.resamples:
            draws = made.resampled(study.resamples, study.rng("msssim", "bootstrap"))
            low, high = centred_interval(made.mean, draws)
        value = Score(
            key="msssim/value",
            name=_name("msssim", made, generated, study),
            metric="msssim",
            features=None,
            label="similarity between samples (MS-SSIM)",
            value=made.mean,
            low=low,
            high=high,
            n_real=len(study.hold),
            n_generated=len(generated),
            better="near",
            target=real.mean,
            note=f"{len(real.pairs)} pairs of HOLD: {real.mean:.3f}",
        )
        return [value, delta_score("msssim/delta", made, real, generated, study)]

    @staticmethod
    def _likeness(evidence: Evidence, study: Study) -> Likeness:
        if evidence is study.hold:
            return study.once(
                "msssim/hold",
                lambda: Likeness.of(evidence.volumes, PAIRS, study.rng("msssim", "pairs")),
            )
        count = PAIRS if study.resamples else ANCHOR_PAIRS
        return Likeness.of(evidence.volumes, count, study.rng("msssim", "pairs"))


def delta_score(
    key: str, made: Likeness, real: Likeness, generated: Evidence, study: Study, level: str = ""
) -> Score:
    """Return how much more alike samples are than real people, all or those of a level."""
    low = high = NAN
    if study.resamples:
        draws = [
            likeness.resampled(study.resamples, study.rng("msssim", side, level))
            for likeness, side in ((made, "made"), (real, "real"))
        ]
        low, high = centred_interval(made.mean - real.mean, draws[0] - draws[1])
    metric = key.partition("/")[0]
    return Score(
        key=key,
        name=_name(f"{metric}_delta", made, generated, study, level),
        metric=metric,
        features=None,
        label=f"similarity between samples minus between real subjects{level and f', {level}'}",
        value=made.mean - real.mean,
        low=low,
        high=high,
        n_real=len(real.ids),
        n_generated=len(made.ids),
        better="near",
        target=0.0,
        note="within 0.02 is good; above: low diversity; below: noise or faults",
    )


def _name(what: str, made: Likeness, generated: Evidence, study: Study, level: str = "") -> str:
    scales = num_scales(generated.volumes.volumes.shape[2:])
    counts = f"pairs={len(made.pairs)},n={len(study.hold)}/{len(generated)}"
    return f"{what}[S={scales},{f'{level},' if level else ''}{counts}]"
