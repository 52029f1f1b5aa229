from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import UsageError
from gyri.prepare.scan import PreparedScan
from gyri.prepare.smooth import SmoothConfig, smooth
from gyri.types import Channel


def test_a_point_becomes_a_gaussian_of_that_width() -> None:
    point = np.zeros((41, 41, 41), np.float32)
    point[20, 20, 20] = 1000
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    labels = np.round(point / 500)
    channels = (Channel("T1w"), Channel("dseg", "label", 3))
    scan = PreparedScan(np.stack([point, labels]), channels, affine, point > 0)
    after = smooth(scan, SmoothConfig(fwhm_mm=8.0))
    line = after.image[0]
    assert line[22, 20, 20] / line[20, 20, 20] == pytest.approx(0.5, abs=0.01)
    assert line[20, 24, 20] / line[20, 20, 20] == pytest.approx(0.5, abs=0.01)
    assert line.sum() == pytest.approx(1000, rel=1e-3)
    np.testing.assert_array_equal(after.image[1], labels)
    with pytest.raises(UsageError, match="fwhm_mm is 0"):
        SmoothConfig(fwhm_mm=0)
