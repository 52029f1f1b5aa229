from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.cohort.small import AFFINE, brain, small_cohort

from gyri.cohort.bids import Scan
from gyri.prepare.pipeline import prepare
from gyri.prepare.quality import outliers, robust_z


def test_the_odd_one_is_found(tmp_path: Path) -> None:
    volume = brain(3)
    volume[:11] = 0
    small_cohort(tmp_path / "raw", 10, {"S003": Scan("S003", "T1w", volume, AFFINE)})
    cohort = prepare(tmp_path / "raw", tmp_path / "out", spacing_mm=8.0, shape=(20, 24, 20), jobs=1)
    table = outliers(cohort)
    assert list(table.index) == list(cohort.table.index)
    assert table.loc["S003", "outlier"]
    stored, _ = cohort.load(cohort.table)
    voxels = (stored[:, 0] > 0).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(table["brain_ml"], voxels * 0.512)
    assert table["z_brain_ml"].idxmin() == "S003"


def test_robust_z() -> None:
    values = pd.Series([1.0, 2, 3, 4, 100])
    assert robust_z(values).tolist() == pytest.approx([-1.349, -0.6745, 0, 0.6745, 65.4265])
    # The median deviation is 0, the mean one 0.75.
    assert robust_z(pd.Series([2.0, 2, 2, 5])).tolist() == pytest.approx(
        [0, 0, 0, 3 * 0.7979 / 0.75]
    )
    assert (robust_z(pd.Series([2.0, 2, 2])) == 0).all()
