from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError, UsageError
from gyri.prepare.crop import CropConfig, crop
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel


def scan(corner: tuple[int, int, int], size: int = 6) -> PreparedScan:
    """A cube of ones in a grid of 20 voxels of 2 mm."""
    volume = np.zeros((20, 20, 20), np.float32)
    i, j, k = corner
    volume[i : i + size, j : j + size, k : k + size] = 1
    volume[i, j, k] = 2
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-20, -30, -40)
    return PreparedScan(volume[None], (Channel("T1w"),), affine, (volume > 0).astype(np.float32))


def position(prepared: PreparedScan, value: float) -> np.ndarray:
    index = np.argwhere(prepared.image[0] == value)[0]
    return prepared.affine[:3, :3] @ index + prepared.affine[:3, 3]


def test_own_brain_comes_to_the_middle_and_the_origin() -> None:
    for corner in [(0, 0, 0), (5, 9, 3), (14, 14, 14)]:
        after = crop(scan(corner), CropConfig(shape=(10, 12, 10)))
        assert after.shape == (10, 12, 10)
        inside = np.argwhere(after.image[0] > 0)
        assert inside.min(axis=0).tolist() == [2, 3, 2]
        assert inside.max(axis=0).tolist() == [7, 8, 7]
        middle = after.affine[:3, :3] @ ((np.array(after.shape) - 1) / 2) + after.affine[:3, 3]
        np.testing.assert_allclose(middle, 0)
        assert after.image.sum() == 6**3 + 1


def test_a_common_window_keeps_the_world() -> None:
    config = CropConfig(shape=(12, 12, 12), centre_mm=(-3.0, -8.0, -20.0))
    for corner in [(6, 8, 7), (7, 9, 8)]:
        before = scan(corner)
        after = crop(before, config)
        np.testing.assert_allclose(position(after, 2), position(before, 2))
        assert after.history[0]["moved_mm"] == [0, 0, 0]
    first, second = crop(scan((6, 8, 7)), config), crop(scan((7, 9, 8)), config)
    np.testing.assert_array_equal(first.affine, second.affine)


def test_padding_beyond_the_grid_is_zero() -> None:
    after = crop(scan((0, 0, 0)), CropConfig(shape=(30, 30, 30)))
    assert after.image.sum() == 6**3 + 1


def test_a_brain_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"of the foreground \(\[9, 9, 9\] voxels\) does not fit"):
        crop(scan((3, 3, 3), size=9), CropConfig(shape=(8, 10, 10)))


def test_what_may_be_cut_is_recorded() -> None:
    config = CropConfig(shape=(8, 10, 10), max_cut=0.2)
    after = crop(scan((3, 3, 3), size=9), config)
    assert after.history[0]["foreground_cut"] == pytest.approx(1 / 9, abs=1e-5)


def test_no_foreground_and_no_shape() -> None:
    empty = scan((0, 0, 0), size=0)
    empty.foreground[:] = 0
    with pytest.raises(DataError, match="may be empty"):
        crop(empty, CropConfig(shape=(4, 4, 4)))
    with pytest.raises(UsageError, match="three positive"):
        CropConfig(shape=(4, 0, 4))
