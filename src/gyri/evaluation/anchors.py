"""Sets whose quality is known, judged by the same code as the generated set.

A score is read between them: what noise gets, what the mean image gets, what a linear model gets,
what copies of the training set get, and (from real scans alone, see `gyri.evaluation.protocol`)
what a perfect generator of this size would get.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.runtime.seeding import derive_seed, numpy_rng

Images = NDArray[np.float32]
Builder = Callable[[VolumeSet, VolumeSet, int, int], Images]

MASK_SHARE = 0.05
COPY_NOISE = 1e-3
BLUR_VOXELS = 1.0
COMPONENTS = 100


def mean_mask(train: VolumeSet) -> NDArray[np.bool_]:
    """Return where TRAIN's mean first channel exceeds 5 % of its largest value, (I, J, K)."""
    mean = train.volumes[:, 0].mean(0)
    return np.asarray(mean > MASK_SHARE * mean.max())


def noise(train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> Images:
    """Return uniform noise inside the mean brain mask: the floor of anything brain-shaped."""
    rng = numpy_rng("anchor", "noise", seed)
    images = rng.random((num, *train.volumes.shape[1:]), dtype=np.float32)
    return images * mean_mask(train)


def white_noise(train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> Images:
    """Return uniform noise on the whole grid: the floor of everything."""
    rng = numpy_rng("anchor", "white_noise", seed)
    return rng.random((num, *train.volumes.shape[1:]), dtype=np.float32)


def phase_random(train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> Images:
    """Return TRAIN volumes with their amplitudes and the phases of white noise.

    Spectrum and mean are exactly those of real scans and nothing is in its place. Not cut to
    [0, 1], which would change the spectrum.
    """
    from scipy import fft

    rng = numpy_rng("anchor", "phase_random", seed)
    source = train.volumes[_rows(len(train), num, rng)]
    axes = (-3, -2, -1)
    shape = source.shape[-3:]
    images = np.empty_like(source)
    for row, volume in enumerate(source):
        amplitude = np.abs(fft.rfftn(volume, axes=axes))
        white = fft.rfftn(rng.standard_normal(volume.shape, dtype=np.float32), axes=axes)
        phase = white / np.maximum(np.abs(white), 1e-12)
        phase[..., 0, 0, 0] = 1.0
        images[row] = fft.irfftn(amplitude * phase, s=shape, axes=axes)
    return images


def mean_image(train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> Images:
    """Return TRAIN's mean, `num` times: the collapse that pixel errors reward."""
    return np.repeat(train.volumes.mean(0, keepdims=True), num, axis=0)


def pca_gaussian(train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> Images:
    """Return draws from a Gaussian with TRAIN's mean and principal components, cut to [0, 1]."""
    from gyri.nn.gaussian import LowRankGaussian

    flat = torch.from_numpy(train.volumes.reshape(len(train), -1))
    generator = torch.Generator().manual_seed(derive_seed("anchor", "pca_gaussian", seed))
    model = LowRankGaussian.fit(flat, COMPONENTS)
    drawn = model.sample(num, generator).clamp_(0, 1)
    return drawn.numpy().reshape(num, *train.volumes.shape[1:]).astype(np.float32)


def train_copies(train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> Images:
    """Return TRAIN volumes with noise of 0.001: perfect to every metric that cannot see copying."""
    rng = numpy_rng("anchor", "train_copies", seed)
    images = train.volumes[_rows(len(train), num, rng)]
    jitter = rng.standard_normal(images.shape, dtype=np.float32) * np.float32(COPY_NOISE)
    return np.clip(images + jitter * (images > 0), 0, 1)


def blurred(train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> Images:
    """Return HOLD volumes blurred by a Gaussian of one voxel."""
    from scipy import ndimage

    rng = numpy_rng("anchor", "blurred", seed)
    sigma = (0, 0, BLUR_VOXELS, BLUR_VOXELS, BLUR_VOXELS)
    return np.asarray(ndimage.gaussian_filter(hold.volumes[_rows(len(hold), num, rng)], sigma))


ANCHORS: dict[str, Builder] = {
    "noise": noise,
    "phase_random": phase_random,
    "mean_image": mean_image,
    "pca_gaussian": pca_gaussian,
    "train_copies": train_copies,
    "blurred": blurred,
}


def _rows(available: int, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `num` rows, each subject as rarely repeated as possible."""
    rounds = -(-num // available)
    return np.concatenate([rng.permutation(available) for _ in range(rounds)])[:num]


def build_anchor(name: str, train: VolumeSet, hold: VolumeSet, num: int, seed: int) -> VolumeSet:
    """Return anchor `name` with `num` volumes on TRAIN's grid.

    Parameters
    ----------
    name : key of `ANCHORS`.
    train, hold : real sets, finite.
    """
    volumes = ANCHORS[name](train, hold, num, seed)
    ids = pd.Index([f"{name}-{index:04d}" for index in range(num)], name=train.table.index.name)
    return VolumeSet(name, volumes, pd.DataFrame(index=ids), train.grid, train.channels)
