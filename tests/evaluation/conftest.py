"""Phantoms at 8 mm, dealt once, and a judge that has measured them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gyri.cohort.phantom import phantom_volumes
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.protocol import Judge

NUM_TRAIN, NUM_HOLD, NUM_GENERATED = 30, 20, 16


@pytest.fixture(scope="session")
def cohort() -> dict[str, VolumeSet]:
    """TRAIN, HOLD and a perfect generator's output: other subjects of the same cohort."""
    volumes = phantom_volumes(NUM_TRAIN + NUM_HOLD + NUM_GENERATED, seed=11, spacing_mm=8.0)
    stops = np.cumsum([0, NUM_TRAIN, NUM_HOLD, NUM_GENERATED])
    names = ("TRAIN", "HOLD", "generated")
    return {n: volumes.take(np.arange(a, b), n) for n, a, b in zip(names, stops, stops[1:])}


@pytest.fixture(scope="session")
def judge(cohort: dict[str, VolumeSet]) -> Judge:
    return Judge(cohort["TRAIN"], cohort["HOLD"], NUM_GENERATED, 0, None, 100, None)


@pytest.fixture
def changed(cohort: dict[str, VolumeSet]):
    """Return a function that replaces the voxels of the generated set."""

    def change(volumes: np.ndarray) -> VolumeSet:
        return replace(cohort["generated"], volumes=volumes.astype(np.float32))

    return change
