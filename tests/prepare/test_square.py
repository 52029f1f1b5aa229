from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError, UsageError
from gyri.prepare.scan import PreparedScan
from gyri.prepare.square import SquareConfig, square
from gyri.types import Channel

CHANNELS = (Channel("T1w"), Channel("dseg", "label", 3))


def scan(shape: tuple[int, int, int] = (12, 16, 10)) -> PreparedScan:
    """A ramp along every axis, with labels 0 to 2, in voxels of 2 x 2 x 3 mm."""
    i, j, k = np.indices(shape, dtype=np.float32)
    affine = np.diag([2.0, 2, 3, 1])
    affine[:3, 3] = (-11, 4, 30)
    return PreparedScan(
        np.stack([1 + i + 100 * j + k, (i + j) % 3]).astype(np.float32),
        CHANNELS,
        affine,
        np.ones(shape, np.float32),
    )


def world(prepared: PreparedScan, index: tuple[int, int, int]) -> np.ndarray:
    return prepared.affine[:3, :3] @ np.array(index) + prepared.affine[:3, 3]


def test_padding_keeps_voxels_and_their_places() -> None:
    before = scan()
    after = square(before, SquareConfig(size=20))
    assert after.shape == (20, 20, 10)
    np.testing.assert_array_equal(after.image[:, 4:16, 2:18], before.image)
    assert after.image.sum() == before.image.sum()
    np.testing.assert_allclose(world(after, (4, 2, 0)), world(before, (0, 0, 0)))


@pytest.mark.parametrize(
    ("plane", "shape"),
    [
        ("axial", (20, 20, 10)),
        ("coronal", (20, 16, 20)),
        ("sagittal", (12, 20, 20)),
        ("all", (20, 20, 20)),
    ],
)
def test_planes(plane, shape) -> None:
    for method in ("pad", "resize"):
        after = square(scan(), SquareConfig(size=20, plane=plane, method=method, max_cut=0))
        assert after.shape == shape


def test_cutting_is_symmetric_and_limited() -> None:
    with pytest.raises(DataError, match="of the foreground"):
        square(scan(), SquareConfig(size=12))
    after = square(scan(), SquareConfig(size=12, max_cut=0.25))
    np.testing.assert_array_equal(after.image, scan().image[:, :, 2:14])
    assert after.history[-1]["foreground_cut"] == 0.25


def test_resizing_fits_the_longer_side_and_stretches_nothing() -> None:
    before = scan()
    after = square(before, SquareConfig(size=32, method="resize"))
    np.testing.assert_allclose(after.spacing_mm, [1, 1, 3])
    np.testing.assert_allclose(world(after, (4, 0, 0)), world(before, (0, 0, 0)) - [0.5, 0.5, 0])
    # Linear interpolation of a linear ramp is exact away from the border.
    inner = after.image[0, 6:26, 2:30]
    i, j, k = np.indices(inner.shape)
    expected = 1 + (i + 6 - 4.5) / 2 + 100 * (j + 2 - 0.5) / 2 + k
    np.testing.assert_allclose(inner, expected, rtol=1e-4)
    assert set(np.unique(after.image[1])) == {0, 1, 2}


def test_wrong_settings() -> None:
    with pytest.raises(UsageError, match="size is 0"):
        SquareConfig(size=0)
    with pytest.raises(UsageError, match="'axil'"):
        SquareConfig(plane="axil")  # type: ignore[arg-type]
