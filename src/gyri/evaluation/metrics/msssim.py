"""Diversity by multi-scale structural similarity between generated volumes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

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
    """Return the largest S <= 5 whose coarsest grid still holds the 11-voxel window; 0 if none."""
    smallest = min(shape)
    return sum(1 for s in range(len(WEIGHTS)) if smallest // 2**s >= WINDOW)


def _window(size: int) -> Image:
    """Return the (size - 10, size) matrix of a valid convolution with the Gaussian window."""
    taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    taps /= taps.sum()
    rows = size - WINDOW + 1
    matrix = np.zeros((rows, size), np.float32)
    for row in range(rows):
        matrix[row, row : row + WINDOW] = taps
    return matrix


def _smooth(image: Image) -> Image:
    """Convolve (I, J, K) with the 11^3 Gaussian, valid part: one product with a matrix an axis."""
    i, j, k = image.shape
    out = image @ _window(k).T
    out = _window(j) @ out
    return np.asarray((_window(i) @ out.reshape(i, -1)).reshape(-1, *out.shape[1:]))


def halve(image: Image) -> Image:
    """Average blocks of 2^3; a last odd layer is left out."""
    i, j, k = (n // 2 for n in image.shape)
    blocks = image[: 2 * i, : 2 * j, : 2 * k].reshape(i, 2, j, 2, k, 2)
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
        for _ in range(scales - 1):
            images.append(halve(images[-1]))
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
    empty background raises it: read it against real pairs on the same grid.

    Raises
    ------
    Refusal
        If the grid is smaller than the window.
    """
    scales = num_scales(x.shape)
    if not scales:
        raise Refusal(f"grid {x.shape} is smaller than the window of {WINDOW} voxels.")
    return combine(*similarities(Pyramid.of(x, scales), Pyramid.of(y, scales)))


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


def _weighted_mean(
    values: FloatArray, pairs: list[tuple[int, int]], counts: FloatArray
) -> FloatArray:
    """Mean over pairs of (R,) resamples of volumes."""
    first, second = np.array(pairs).T
    weights = counts[:, first] * counts[:, second]
    with np.errstate(invalid="ignore"):
        return np.asarray(weights @ values / weights.sum(1))


@METRICS.register("msssim")
class Diversity(Metric):
    """Mean MS-SSIM between generated volumes, and its difference from real pairs.

    Best near the value of HOLD pairs; a difference above 0.02 means too little diversity, below
    -0.02 with a poor Frechet distance it means noise. 1,000 seeded pairs of different subjects;
    the interval resamples volumes. S, the number of scales that the grid holds, is in the name.
    Needs two volumes and a grid of 11 voxels. Blind to how real a volume is.
    """

    name = "msssim"
    sees: ClassVar = {"msssim/*": ("+blur", "-noise", "+mode_dropping")}
    blind_to = "how real a volume is: repeated slices, wrong contrast and flips leave it as it is"
    family = "diversity"
    needs_unseen = False

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the mean similarity and its difference from HOLD's."""
        shape = generated.volumes.volumes.shape[2:]
        scales = num_scales(shape)
        if not scales:
            raise Refusal(f"grid {shape} is smaller than the window of {WINDOW} voxels.")
        real_values, real_pairs = study.once(
            "msssim/hold", lambda: self._values(study.hold, scales, PAIRS, study)
        )
        count = PAIRS if study.resamples else ANCHOR_PAIRS
        values, pairs = self._values(generated, scales, count, study)
        if not pairs:
            raise Refusal("there is no pair of different subjects.")
        value, real = float(values.mean()), float(real_values.mean())
        low = high = delta_low = delta_high = NAN
        if study.resamples:
            rng = study.rng("msssim", "bootstrap")
            made = _weighted_mean(
                values, pairs, draw_counts(generated.volumes.ids, study.resamples, rng)
            )
            held = _weighted_mean(
                real_values, real_pairs, draw_counts(study.hold.volumes.ids, study.resamples, rng)
            )
            low, high = centred_interval(value, made)
            delta_low, delta_high = centred_interval(value - real, made - held)
        definition = f"S={scales},pairs={len(pairs)},n={len(study.hold)}/{len(generated)}"
        return [
            Score(
                key="msssim/value",
                name=f"msssim[{definition}]",
                metric="msssim",
                features=None,
                label="similarity between samples (MS-SSIM)",
                value=value,
                low=low,
                high=high,
                n_real=len(study.hold),
                n_generated=len(generated),
                better="near",
                target=real,
                note=f"{len(real_pairs)} pairs of HOLD: {real:.3f}",
            ),
            Score(
                key="msssim/delta",
                name=f"msssim_delta[{definition}]",
                metric="msssim",
                features=None,
                label="similarity between samples minus between real subjects",
                value=value - real,
                low=delta_low,
                high=delta_high,
                n_real=len(study.hold),
                n_generated=len(generated),
                better="near",
                target=0.0,
                note="within 0.02 is good; above: low diversity; below: noise or faults",
            ),
        ]

    def _values(
        self, evidence: Evidence, scales: int, count: int, study: Study
    ) -> tuple[FloatArray, list[tuple[int, int]]]:
        pairs = draw_pairs(evidence.volumes.ids, count, study.rng("msssim", "pairs"))
        return pairwise(evidence.volumes.volumes[:, 0], pairs, scales), pairs
