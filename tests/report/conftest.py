"""Fabricated sets and scores."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.volumes import VolumeSet
from gyri.types import Grid

SHAPE = (12, 14, 12)
GRID = Grid(
    SHAPE, ((8.0, 0.0, 0.0, -48.0), (0.0, 8.0, 0.0, -56.0), (0.0, 0.0, 8.0, -48.0), (0, 0, 0, 1.0))
)
MakeSet = Callable[..., VolumeSet]


@pytest.fixture
def make_set() -> MakeSet:
    """Return a maker of ellipsoid "brains" with three intensities and some noise."""

    def make(
        name: str, num: int, *, seed: int = 0, channels: tuple[str, ...] = ("T1w",)
    ) -> VolumeSet:
        rng = np.random.default_rng([seed, num])
        axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
        volumes = np.zeros((num, len(channels), *SHAPE), np.float32)
        for row in range(num):
            radius = np.sqrt(sum((a / rng.uniform(0.75, 0.9)) ** 2 for a in axes))
            tissue = np.select([radius < 0.35, radius < 0.7, radius < 1], [0.25, 0.85, 0.55], 0)
            noise = 0.05 * rng.standard_normal((len(channels), *SHAPE))
            volumes[row] = np.where(tissue > 0, tissue + noise, 0).clip(0, 1)
        table = pd.DataFrame(
            {"age": rng.uniform(20, 90, num), "sex": rng.choice(["F", "M"], num)},
            index=[f"sub-{name.lower()}{row:03d}" for row in range(num)],
        )
        return VolumeSet(name, volumes, table, GRID, channels)

    return make


def make_score(name: str = "kd", **changes: Any) -> dict[str, Any]:
    """Return one entry of a scores file."""
    entry = {
        "name": name,
        "metric": "kernel_distance",
        "features": "spectrum-v1",
        "label": "Kernel distance",
        "value": 2.0,
        "low": 1.5,
        "high": 2.6,
        "n_real": 20,
        "n_generated": 4,
        "better": "lower",
        "target": None,
        "unit": "",
        "reliable": True,
        "note": None,
        "p_value": None,
        "anchors": {
            "ceiling": 1.0,
            "noise": 17.0,
            "phase_random": 9.0,
            "mean_image": 12.0,
            "pca_gaussian": 5.0,
            "train_copies": 0.9,
            "blurred": 7.0,
        },
    }
    return {**entry, **changes}


_SCORES: dict[str, Any] = {
    "schema": "gyri-scores-1",
    "generated": "synthetic",
    "channel": "T1w",
    "n": {"TRAIN": 8, "HOLD": 6, "generated": 4},
    "spacing_mm": 8.0,
    "seed": 0,
    "provenance": {},
    "lead": ["cov"],
    "scores": [
        make_score("kd"),
        make_score("cov", label="Coverage", better="higher", value=0.8, low=0.7, high=0.9)
        | {"anchors": {"ceiling": 0.9, "noise": 0.0, "pca_gaussian": 0.85}},
    ],
    "refused": [{"metric": "fd", "features": "inception-tf", "reason": "no weights"}],
    "gates": {
        "one_component": {"passed": True, "share": 1.0, "detail": "4 of 4"},
        "slice_coherence": {"passed": False, "share": 0.5, "detail": "2 of 4"},
    },
    "samples": [
        {"id": "sub-synthetic000", "one_component": True, "brain_ml": 1200.5, "nearest_id": None},
        {"id": "sub-synthetic001", "one_component": False, "brain_ml": None, "nearest_id": None},
    ],
}


@pytest.fixture
def scores() -> dict[str, Any]:
    """Return a fresh scores file."""
    return copy.deepcopy(_SCORES)


@pytest.fixture
def score() -> Callable[..., dict[str, Any]]:
    """Return the maker of one entry of a scores file."""
    return make_score
