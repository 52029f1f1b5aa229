"""Brains that are cheap: an ellipsoid with a random smooth field of its own for each person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.privacy.audit import Cast, measure_distances
from gyri.evaluation.privacy.controls import canaries, noisy_copies
from gyri.types import Grid

SHAPE = (12, 14, 12)
GRID = Grid(SHAPE, ((8.0, 0, 0, -48.0), (0, 8.0, 0, -56.0), (0, 0, 8.0, -48.0), (0, 0, 0, 1.0)))
MakePeople = Callable[[str, int, int], VolumeSet]


def people(name: str, num: int, seed: int) -> VolumeSet:
    rng = np.random.default_rng([seed, num])
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = sum(a**2 for a in axes) < 0.8
    noise = rng.standard_normal((num, *SHAPE))
    fields = ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 1.5)) * 12
    volumes = np.where(inside, 0.5 + 0.1 * fields, 0).clip(0, 1).astype(np.float32)[:, None]
    table = pd.DataFrame(index=[f"{name}{row:03d}" for row in range(num)])
    return VolumeSet(name, volumes, table, GRID, ("T1w",))


def pooled(volumes: VolumeSet) -> dict[str, np.ndarray]:
    """Stand in for a feature set: means over blocks of two voxels, first components of a basis."""
    blocks = volumes.volumes[:, 0].reshape(len(volumes), 6, 2, 7, 2, 6, 2).mean((2, 4, 6))
    basis = np.random.default_rng(5).standard_normal((6 * 7 * 6, 10))
    return {"radiomics-v1": blocks.reshape(len(volumes), -1).astype(np.float64) @ basis}


@pytest.fixture(scope="session")
def make_people() -> MakePeople:
    return people


@pytest.fixture(scope="session")
def train() -> VolumeSet:
    return people("TRAIN", 60, 1)


@pytest.fixture(scope="session")
def cast_of(train: VolumeSet) -> Callable[..., Cast]:
    """Return a function that brings samples together with 60 TRAIN, 40 HOLD and 24 other people."""

    def build(*samples: VolumeSet) -> Cast:
        return measure_distances(
            train,
            people("HOLD", 40, 2),
            [people("VAL", 12, 3), people("TEST", 12, 4)],
            [*samples, noisy_copies(train, 16, 0)],
            pooled,
            by_voxels=[canaries(train, 0)],
        )

    return build
