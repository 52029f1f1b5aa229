from __future__ import annotations

import numpy as np

from gyri.prepare.point_spread import as_seen_by
from gyri.prepare.resample import ResampleConfig, resample
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel


def test_a_point_gets_the_width_that_the_coarser_voxel_adds() -> None:
    point = np.zeros((41, 41, 41), dtype=np.float32)
    point[20, 20, 20] = 1
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    seen = as_seen_by(point, affine, 4.0)
    offsets_mm = (np.indices(point.shape).reshape(3, -1).T - 20) * [1, 1, 2]
    variance = seen.ravel() @ offsets_mm**2
    # sigma^2 = (d_out^2 - d_in^2) / (8 ln 2)
    np.testing.assert_allclose(variance, (16 - np.array([1, 1, 4])) / (8 * np.log(2)), rtol=0.02)


def test_finer_voxels_change_nothing() -> None:
    volume = np.random.default_rng(0).random((9, 9, 9), dtype=np.float32)
    np.testing.assert_array_equal(as_seen_by(volume, np.diag([2.0, 2.0, 2.0, 1.0]), 1.0), volume)


def test_it_is_what_resample_does() -> None:
    volume = np.random.default_rng(0).random((40, 40, 40), dtype=np.float32)
    scan = PreparedScan(volume[None], (Channel("T1w"),), np.eye(4), np.ones_like(volume))
    after = resample(scan, ResampleConfig(spacing_mm=4.0))
    seen = as_seen_by(volume, np.eye(4), 4.0)
    # New voxels lie in the middle between old ones: linear interpolation is their mean.
    assert after.shape == (10, 10, 10)
    between = sum(
        seen[1 + i :: 4, 1 + j :: 4, 1 + k :: 4]
        for i in (0, 1) for j in (0, 1) for k in (0, 1)
    ) / 8  # fmt: skip
    np.testing.assert_allclose(after.image[0][2:-2, 2:-2, 2:-2], between[2:-2, 2:-2, 2:-2],
                               atol=1e-4)  # fmt: skip
