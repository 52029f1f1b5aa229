"""Evidence on people whose features follow their age, sex and scanner by a known law."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.metrics import Evidence
from gyri.evaluation.metrics.volumes import TISSUES
from gyri.types import Grid

GRID = Grid((4, 4, 4), tuple(map(tuple, np.diag([8.0, 8.0, 8.0, 1.0]))))
DIMENSIONS = 12


def people(num: int, seed: int, **asked: float) -> Evidence:
    """Draw people; `asked` multiplies the effect of a column (0 ignores it, 2 overdoes it)."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": rng.uniform(20, 90, num),
            "sex": rng.choice(["F", "M"], num),
            "scanner": rng.choice(["A", "B"], num),
            "shoe": rng.normal(40, 3, num),
        },
        index=[f"person{seed}x{k:04d}" for k in range(num)],
    )
    return shown(table, seed, **asked)


def shown(table: pd.DataFrame, seed: int, **asked: float) -> Evidence:
    """Return what people of a table look like; equal seeds are equal people at other conditions."""
    rng = np.random.default_rng([seed, 1])
    num = len(table)
    effect = {
        "age": (table["age"].to_numpy(float) - 55) / 20,
        "sex": np.where(table["sex"] == "M", 1.0, -1.0),
        "scanner": np.where(table["scanner"] == "A", 1.0, -1.0),
    }
    x = rng.standard_normal((num, DIMENSIONS))
    for place, (name, values) in enumerate(effect.items()):
        x[:, place] = 0.5 * x[:, place] + asked.get(name, 1.0) * values
    volumes = (0.5 + 0.01 * rng.standard_normal((num, 1, 4, 4, 4))).astype(np.float32)
    morph = {
        tissue: 1000 + 20 * rng.standard_normal(num) + 10 * asked.get("sex", 1.0) * effect["sex"]
        for tissue in TISSUES
    }
    morph["central_csf_ml"] = 30 + 3 * rng.standard_normal(num)
    morph["central_csf_ml"] += 8 * asked.get("age", 1.0) * effect["age"]
    return Evidence(
        VolumeSet("people", volumes, table, GRID, ("T1w",)),
        np.zeros(num, bool),
        {"morph-v1": x[:, :6], "radiomics-v1": x[:, 6:]},
        morph,
        np.ones((num, 2)),
    )
