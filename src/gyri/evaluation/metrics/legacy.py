"""Published definitions that are wrong, as they were published, to compare with their tables.

None is part of the default sheet, of a gate, of the leading scores or of a verdict. Each function
says what is wrong with it. S0 to S3 are the four studies that gyri reproduces: OASIS-1 GANs and
guided diffusion (S0), scanner-conditional VAE on IXI and SALD (S1), StyleGAN on BraTS-Africa
(S2), deformation diffusion (S3, whose table of models comes from MRIAnatEval). Their networks'
features are replaced by the feature sets of the sheet: the defects are those of the statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features.sliced import box_weights
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.evaluation.metrics.frechet import frechet_distance
from gyri.evaluation.metrics.msssim import WEIGHTS, Pyramid, halve, num_scales, similarities
from gyri.evaluation.metrics.unpaired import psnr
from gyri.registry import METRICS

FID_DRAWS = 20
DUPLICATED = 200
MMD_ROUNDS = 5
PAIRS, ANCHOR_PAIRS = 40, 10
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
POOLED_CELLS = 8
"""Cells along each axis of a slice that stand for its features."""

Images = NDArray[np.float32]


def linear_mmd_of_pairs(x: FloatArray, y: FloatArray, divisor: float) -> float:
    """Return the sum of linear-kernel MMDs over batches of two, divided (S3, MRIAnatEval).

    Wrong: the biased estimate ``|mean(x) - mean(y)|^2`` of two against two has the expectation
    ``|mx - my|^2 + (Tr Cx + Tr Cy) / 2``. A perfect generator scores Tr C; one that always
    returns the mean scores Tr C / 2, which is better. It sees no difference of variances.

    Parameters
    ----------
    x, y : (2 b, d), batches of two in order.
    divisor : what the sum is divided by.
    """
    gaps = x.reshape(-1, 2, x.shape[1]).mean(1) - y.reshape(-1, 2, y.shape[1]).mean(1)
    return float((gaps * gaps).sum() / divisor)


def legacy_feature_mmd(real: FloatArray, generated: FloatArray) -> float:
    """Return S3's MMD of features: batches of two in order, divided by N - 1.

    Wrong beside `linear_mmd_of_pairs`: there are N / 2 batches, so that dividing by N - 1 halves
    it; and the real features come from `first_half_twice`.
    """
    n = min(len(real), len(generated)) // 2 * 2
    return linear_mmd_of_pairs(real[:n], generated[:n], n - 1)


def legacy_image_mmd(real: Images, generated: Images, rng: np.random.Generator) -> float:
    """Return S3's "image MMD": raw voxels, consecutive samples against two real ones drawn.

    Wrong beside `linear_mmd_of_pairs`: sums over voxels grow with the grid, so that tables of
    different grids cannot be compared; every sample but the ends counts twice.

    Parameters
    ----------
    real, generated : (n, V) and (m, V) voxels in [-1, 1], m at least 2.
    """
    total = 0.0
    for _ in range(MMD_ROUNDS):
        for first in range(len(generated) - 1):
            drawn = rng.choice(len(real), 2, replace=False)
            gap = generated[first : first + 2].mean(0) - real[drawn].mean(0)
            total += float(np.dot(gap, gap))
    return total / (MMD_ROUNDS * (len(generated) - 1))


def first_half_twice(features: FloatArray) -> FloatArray:
    """Return the first half of the rows, each twice (S3: the first 200 of 400).

    Wrong: one volume is passed where a batch of two is expected and fills two rows; half of the
    reference is never looked at, and the covariance is that of n / 2 subjects.
    """
    return np.repeat(features[: min(DUPLICATED, len(features) // 2)], 2, axis=0)


def contrast_and_ssim(x: Images, y: Images) -> tuple[float, float]:
    """Return mean contrast-structure and mean SSIM with a reflected Gaussian border (S3).

    Wrong: the constants are those of the range [0, 1] while the volumes lie in [-1, 1], and the
    reflected border counts.
    """
    from scipy.ndimage import gaussian_filter

    mean_x, mean_y = gaussian_filter(x, SIGMA), gaussian_filter(y, SIGMA)
    product = mean_x * mean_y
    var_x = gaussian_filter(x * x, SIGMA) - mean_x**2
    var_y = gaussian_filter(y * y, SIGMA) - mean_y**2
    contrast = (2 * (gaussian_filter(x * y, SIGMA) - product) + C2) / (var_x + var_y + C2)
    luminance = (2 * product + C1) / (mean_x**2 + mean_y**2 + C1)
    return float(contrast.mean()), float((luminance * contrast).mean())


def legacy_combine(contrast: FloatArray, ssim: FloatArray, *, mapped: bool) -> float:
    """Return S3's product over scales (also in 3dbraingen); NaN for a negative contrast.

    Wrong: the last scale's SSIM is inside the product over the others, which raises it to the 4th
    power. `mapped` first takes (s + 1) / 2, which makes unlike volumes alike; the paper's value of
    real pairs (0.88) is mapped, that of generated ones is not.

    Parameters
    ----------
    contrast, ssim : (5,) of the scales from fine to coarse.
    """
    if mapped:
        contrast, ssim = (contrast + 1) / 2, (ssim + 1) / 2
    weights = np.array(WEIGHTS)
    with np.errstate(invalid="ignore"):
        powers, last = contrast**weights, ssim[-1] ** weights[-1]
    return float(np.prod(powers[:-1] * last))


def legacy_ms_ssim(x: Images, y: Images, *, mapped: bool) -> float:
    """Return S3's MS-SSIM of two (I, J, K) volumes in [-1, 1]; see `legacy_combine`.

    Wrong beside that: five scales whatever the grid, so that the coarsest holds a few voxels.

    Raises
    ------
    Refusal
        If the coarsest of five scales holds no voxel.
    """
    if min(x.shape) < 2 ** (len(WEIGHTS) - 1):
        raise Refusal(f"grid {x.shape} holds no voxel at the fifth scale; it needs 16 an axis.")
    scales = [contrast_and_ssim(x, y)]
    for _ in range(len(WEIGHTS) - 1):
        x, y = halve(x), halve(y)
        scales.append(contrast_and_ssim(x, y))
    contrast, ssim = np.array(scales).T
    return legacy_combine(contrast, ssim, mapped=mapped)


def _signed_ms_ssim(x: Images, y: Images, *, mapped: bool) -> float:
    """`legacy_ms_ssim` of volumes in [0, 1]."""
    return legacy_ms_ssim(2 * x - 1, 2 * y - 1, mapped=mapped)


def mean_without_nan(values: FloatArray) -> float:
    """Return the mean of what is no number left out (S3).

    Wrong: NaN comes from negative contrast, the worst pairs; leaving them out flatters the set.
    """
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else NAN


def fid_with_spread(
    real: FloatArray, generated: FloatArray, rng: np.random.Generator
) -> tuple[float, float]:
    """Return mean and sd of the Frechet distance over 20 draws of the generated set (S1).

    Wrong: real subjects are held fixed, so that the sd is the noise of sampling alone and says
    nothing about other subjects; the distance itself is biased upwards and its scanners have
    different n, so that its rows cannot be compared.
    """
    draws = rng.integers(len(generated), size=(FID_DRAWS, len(generated)))
    values = np.array([frechet_distance(real, generated[rows]) for rows in draws])
    return float(values.mean()), float(values.std())


def pooled_slices(images: Images) -> FloatArray:
    """Return (N K, 64) features of all axial slices of (N, I, J, K) images: 8 x 8 cell means."""
    along_i, along_j = (box_weights(size, POOLED_CELLS) for size in images.shape[1:3])
    cells = np.einsum("ai,nijk,bj->nkab", along_i, images, along_j, optimize=True)
    return np.asarray(cells.reshape(-1, POOLED_CELLS**2), np.float64)


def slice_fid(real: Images, generated: Images) -> float:
    """Return the Frechet distance of two pools of slices (S2; S0's FID of volumes, too).

    Wrong: the pool forgets which slice is whose and where, so that one slice repeated through a
    volume passes if the pool is right; slices of a subject are no independent samples, and n is
    that of slices, which hides how few subjects there are.

    Parameters
    ----------
    real, generated : (n, I, J, K) and (m, I, J, K).
    """
    return frechet_distance(pooled_slices(real), pooled_slices(generated))


def unpaired_ssim(x: Images, y: Images) -> float:
    """Return the SSIM of two unrelated (I, J, K) volumes in [0, 1] (S0).

    Wrong: the two have no anatomy in common; a blurred average is likest to everyone.
    """
    return similarities(Pyramid.of(x, 1), Pyramid.of(y, 1))[1]


def unpaired_psnr(x: Images, y: Images) -> float:
    """Return the PSNR of two unrelated volumes in [0, 1] in dB (S0).

    Wrong: independent draws have an error of 2 sigma^2 and the mean image sigma^2, so that
    collapse gains 3.01 dB; uniform noise against uniform noise has 7.78 dB.
    """
    return float(psnr(np.array(np.mean((x - y) ** 2, dtype=np.float64))))


@METRICS.register("legacy")
class Legacy(Metric):
    """What S0 to S3 computed, wrong as it was, for comparison with their tables.

    Only on request (``gyri evaluate --legacy``); marked unreliable, never part of a gate, of the
    leading scores or of a verdict. Needs 4 volumes.
    """

    name = "legacy"
    default = False
    min_generated = 4
    blind_to = "what each function's documentation names; it decides nothing"

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return every definition that the grid allows."""
        return [*self._images(generated, study), *self._features(generated, study)]

    def _features(self, generated: Evidence, study: Study) -> list[Score]:
        scores = []
        for name, made in generated.features.items():
            hold = study.hold.features[name]
            mean, sd = fid_with_spread(hold, made, study.rng("legacy", name))
            doubled = first_half_twice(hold)
            found = {
                "fid": (
                    mean,
                    f"S1: sd {sd:.3g} over 20 draws of the samples, which is no interval",
                ),
                "fid_duplicated": (
                    frechet_distance(doubled, made),
                    "S3: the first half of the reference, each row twice",
                ),
                "mmd_features": (
                    legacy_feature_mmd(doubled, made),
                    "S3: linear kernel on batches of two; collapse to the mean scores better",
                ),
            }
            scores += [
                self._score(key, value, note, name, generated, study)
                for key, (value, note) in found.items()
            ]
        return scores

    def _images(self, generated: Evidence, study: Study) -> list[Score]:
        made, hold = (e.volumes.volumes[:, 0] for e in (generated, study.hold))
        rng = study.rng("legacy", "pairs")
        count = PAIRS if study.resamples else ANCHOR_PAIRS
        pairs = np.stack([rng.integers(len(side), size=count) for side in (made, hold)], axis=1)

        def mean(function: Callable[[Images, Images], float]) -> float:
            return mean_without_nan(np.array([function(made[a], hold[b]) for a, b in pairs]))

        held, flat = (2 * side.reshape(len(side), -1) - 1 for side in (hold, made))
        found = {
            "psnr": (mean(unpaired_psnr), "S0: unrelated volumes; the mean image wins"),
            "fid_slices": (slice_fid(hold, made), "S2: pool of axial slices, 8 x 8 cell means"),
            "mmd_image": (
                legacy_image_mmd(held, flat, study.rng("legacy", "image")),
                "S3: linear kernel on raw voxels, batches of two; collapse scores better",
            ),
        }
        if num_scales(made.shape[1:]):
            found["ssim"] = (mean(unpaired_ssim), "S0: unrelated volumes; a blurred mean wins")
        if min(made.shape[1:]) >= 2 ** (len(WEIGHTS) - 1):
            for key, mapped in (("ms_ssim", False), ("ms_ssim_mapped", True)):
                found[key] = (
                    mean(partial(_signed_ms_ssim, mapped=mapped)),
                    "S3: last scale to the 4th power" + (", (s + 1) / 2 first" if mapped else ""),
                )
        return [
            self._score(key, value, note, None, generated, study)
            for key, (value, note) in found.items()
        ]

    def _score(
        self,
        key: str,
        value: float,
        note: str,
        features: str | None,
        generated: Evidence,
        study: Study,
    ) -> Score:
        place = f"{key}/{features}" if features else key
        higher = key.startswith(("psnr", "ssim", "ms_ssim"))
        n = f"n={len(study.hold)}/{len(generated)}"
        return Score(
            key=f"legacy_{place}",
            name=f"legacy_{key}[{features + ',' if features else ''}{n}]",
            metric="legacy",
            features=features,
            label=f"legacy {key.replace('_', ' ')}" + (f", {features}" if features else ""),
            value=value,
            n_real=len(study.hold),
            n_generated=len(generated),
            better="higher" if higher else "lower",
            reliable=False,
            note=f"not for ranking. {note}",
        )
