from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.cohort.small import AFFINE, brain, small_cohort

from gyri.cohort.bids import Scan
from gyri.prepare.pipeline import prepare
from gyri.prepare.quality import measure_scan, outliers, robust_limits, robust_z


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


def test_robust_limits_are_where_z_is_the_limit() -> None:
    values = pd.Series([1.0, 2, 3, 4, 100])
    low, high = robust_limits(values, 2.0)
    z = robust_z(pd.concat([values, pd.Series([low, high])], ignore_index=True))
    assert low == pytest.approx(3 - 2 / 0.6745)
    assert high == pytest.approx(3 + 2 / 0.6745)
    assert abs(z.iloc[-1]) == pytest.approx(abs(z.iloc[-2]))


def test_noise_and_contrast_are_measured_in_any_unit() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40, 40), bool)
    mask[5:35, 5:35, 5:35] = True
    slope = np.linspace(80, 120, 40)[:, None, None]
    volume = np.where(mask, slope + rng.normal(0, 4, mask.shape), 0).astype(np.float32)
    measured = measure_scan(volume, mask, voxel_ml=0.5)
    assert measured["brain_ml"] == 13500
    assert measured["mean_intensity"] == pytest.approx(100, rel=0.01)
    assert measured["noise"] == pytest.approx(0.04, rel=0.03)
    low, high = np.percentile(volume[mask], (10, 90))
    assert measured["contrast"] == pytest.approx((high - low) / (high + low))
    scaled = measure_scan(volume * 7, mask, voxel_ml=0.5)
    assert scaled["noise"] == pytest.approx(measured["noise"], rel=1e-4)
    assert scaled["contrast"] == pytest.approx(measured["contrast"], rel=1e-4)
    assert set(measure_scan(volume, ~mask & mask, 0.5).values()) == {0.0}
