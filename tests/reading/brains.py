"""Little brains on a coarse grid: a prepared cohort and samples, real in form and cheap to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gyri.cohort.files import write_json
from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import INT16_MAX, file_hash, prepared_path, write_manifest
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.table import ColumnType
from gyri.types import Channel, Grid

COLUMNS = {
    "age": ColumnType(kind="continuous", description="Age", unit="year"),
    "sex": ColumnType(kind="categorical", description="Sex", levels={"F": "female", "M": "male"}),
}


def grid_of(shape: tuple[int, int, int], spacing_mm: float) -> Grid:
    rows = np.diag([spacing_mm] * 3 + [1.0])
    rows[:3, 3] = [-spacing_mm * (size - 1) / 2 for size in shape]
    return Grid(shape, tuple(tuple(float(v) for v in row) for row in rows))


def brain(shape: tuple[int, int, int], rng: np.random.Generator, noise: float = 0.05) -> np.ndarray:
    """Return a ball of tissue with ventricles and noise, (I, J, K) in [0, 1], 0 outside."""
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    radius = np.sqrt((place**2).sum(0)) / rng.uniform(0.75, 0.85)
    values = 0.8 - 0.3 * (radius > 0.8) - 0.4 * (radius < rng.uniform(0.2, 0.35))
    values = values + noise * rng.standard_normal(shape)
    return np.where(radius < 1, values, 0).clip(0, 1).astype(np.float32)


def people(num: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"age": rng.integers(20, 90, num).astype(float), "sex": ["F", "M"] * (num // 2)}
    )


def write_cohort(
    root: Path,
    num: int = 48,
    shape=(12, 14, 12),
    spacing_mm: float = 10.0,
    skull_stripped: bool = True,
) -> Path:
    """Write a prepared cohort whose subjects are all in HOLD."""
    channel, grid, rng = Channel("T1w"), grid_of(shape, spacing_mm), np.random.default_rng(1)
    table = people(num).set_axis([f"P{k:03d}" for k in range(num)])
    table.insert(0, "session", "")
    table.insert(1, "split", "HOLD")
    files = {}
    for subject in table.index:
        path = root / prepared_path(subject, "", channel)
        write_volume(
            path,
            brain(shape, rng),
            np.array(grid.affine),
            descrip="",
            dtype="int16",
            scale=1 / INT16_MAX,
        )
        write_json(path.with_suffix(".json"), {"SkullStripped": skull_stripped})
        files[str(path.relative_to(root))] = file_hash(path)
    write_manifest(
        root,
        name="little",
        grid=grid,
        channels=(channel,),
        intensity_range=(0.0, 1.0),
        table=table,
        columns=COLUMNS,
        files=files,
        quarantine=[],
        settings={},
    )
    return root


def write_samples(
    root: Path,
    num: int = 48,
    shape=(12, 14, 12),
    spacing_mm: float = 10.0,
    noise: float = 0.05,
    seed: int = 2,
    **facts: object,
) -> Path:
    """Write samples that are drawn as the cohort's people are, or with another noise."""
    rng, grid = np.random.default_rng(seed), grid_of(shape, spacing_mm)
    table = people(num).set_axis([f"syn{k:04d}" for k in range(num)])
    cohort = SyntheticCohort.create(
        root,
        {
            "recipe_name": "little",
            "skull_stripped": True,
            "channels": ["T1w"],
            "grid": {"shape": list(shape), "affine": [list(row) for row in grid.affine]},
            **facts,
        },
        table,
        COLUMNS,
    )
    for sample in table.index:
        cohort.write(sample, [brain(shape, rng, noise)], {"Seed": 0})
    return root
