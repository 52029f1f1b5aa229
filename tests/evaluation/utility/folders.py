"""Folders of synthetic volumes, written without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gyri.cohort.phantom import phantom_volumes
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.table import CONVENTIONAL


def write_samples(
    root: Path,
    cohort: PreparedCohort,
    num: int,
    *,
    seed: int,
    spacing_mm: float = 8.0,
    run: Path | None = None,
    labels: np.ndarray | None = None,
) -> Path:
    """Write phantoms as if a generator trained on `cohort` had made them for age and sex."""
    made = phantom_volumes(num, seed, spacing_mm, missing=0)
    table = made.table[["age", "sex"]].copy()
    table.index = [f"syn{k + 1:04d}" for k in range(num)]
    grid = {"shape": list(made.grid.shape), "affine": [list(row) for row in made.grid.affine]}
    channels = [vars(c) for c in cohort.channels if labels is not None or c.kind == "intensity"]
    facts = {
        "recipe_name": "phantoms",
        "run": str(run or "nowhere"),
        "checkpoint_sha256": "0" * 64,
        "seed": seed,
        "num": num,
        "grid": grid,
        "channels": channels,
        "data_hash": cohort.data_hash,
        "split_hash": cohort.split_hash,
        "skull_stripped": True,
    }
    columns = {name: CONVENTIONAL[name] for name in ("age", "sex")}
    samples = SyntheticCohort.create(root, facts, table, columns)
    for row, name in enumerate(table.index):
        volume = [made.volumes[row, 0], *([] if labels is None else [labels[row]])]
        samples.write(name, volume, {})
    return root
