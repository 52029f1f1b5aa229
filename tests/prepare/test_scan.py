from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError
from gyri.prepare.scan import bounding_box, box_centre_mm, foreground


def ball(radius: float = 8) -> np.ndarray:
    away = np.indices((24, 24, 24)) - 11.5
    return np.sqrt((away**2).sum(axis=0)) < radius


def test_a_stripped_scan_keeps_its_dark_voxels() -> None:
    volume = np.where(ball(), 100.0, 0)
    volume[11, 11, 8:16] = 0.5
    np.testing.assert_array_equal(foreground(volume, np.eye(4)), ball())


def test_a_head_in_noisy_air_is_found_without_holes() -> None:
    rng = np.random.default_rng(0)
    volume = np.abs(rng.normal(0, 3, (24, 24, 24))) + np.where(ball(), 100, 0)
    volume[ball(3)] = 1
    assert (foreground(volume, np.eye(4)) == ball()).mean() > 0.999


def test_nothing_in_it() -> None:
    volume = np.zeros((24, 24, 24))
    volume[3, 3, 3] = 1
    with pytest.raises(DataError, match="may be empty"):
        foreground(volume, np.eye(4))


def test_box() -> None:
    mask = np.zeros((8, 9, 10), bool)
    mask[1:4, 2:9, 5] = True
    assert bounding_box(mask).tolist() == [[1, 3], [2, 8], [5, 5]]
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (10, 0, -5)
    assert box_centre_mm(mask, affine).tolist() == [14, 10, 5]
