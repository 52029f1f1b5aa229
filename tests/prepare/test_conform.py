from __future__ import annotations

import numpy as np
import pytest

from gyri.errors import DataError, UsageError
from gyri.prepare.conform import ConformConfig, conform
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel

SURFACE_RAS = np.array([[-1, 0, 0, 128], [0, 0, 1, -128], [0, -1, 0, 128], [0, 0, 0, 1.0]])
"""FreeSurfer's vox2ras-tkr of a conformed volume, whose axes are LIA."""


def scan(affine: np.ndarray, shape: tuple[int, int, int] = (40, 50, 30)) -> PreparedScan:
    """A blob, broad enough that interpolation changes little, off the middle."""
    i, j, k = np.indices(shape)
    away = ((i - 18) / 8) ** 2 + ((j - 27) / 9) ** 2 + ((k - 14) / 6) ** 2
    values = (100 * np.exp(-away)).astype(np.float32)
    label = (away < 1).astype(np.float32) * 2
    return PreparedScan(
        np.stack([values, label]), (Channel("T1w"), Channel("dseg", "label", 3)), affine,
        (values > 5).astype(np.float32),
    )  # fmt: skip


def peak_mm(prepared: PreparedScan) -> np.ndarray:
    """World position of the blob's centre of mass."""
    values = prepared.image[0].astype(float)
    centre = [(values * axis).sum() / values.sum() for axis in np.indices(prepared.shape)]
    return prepared.affine[:3, :3] @ centre + prepared.affine[:3, 3]


def las() -> np.ndarray:
    affine = np.diag([-2.0, 2, 3, 1])
    affine[:3, 3] = (60, -10, 20)
    return affine


def test_the_grid_is_freesurfer_s() -> None:
    after = conform(scan(las()), ConformConfig())
    assert after.shape == (256, 256, 256)
    # Its voxels flipped from LIA to RAS+: (255 - i, k, 255 - j).
    flip = np.array([[-1, 0, 0, 255], [0, 0, 1, 0], [0, -1, 0, 255], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(after.affine @ flip, SURFACE_RAS)


def test_the_world_moves_by_the_centre_of_the_field_of_view() -> None:
    before = scan(las())
    after = conform(before, ConformConfig(size=150))
    centre = before.affine @ [20, 25, 15, 1]
    np.testing.assert_allclose(peak_mm(after), peak_mm(before) - centre[:3], atol=0.02)
    np.testing.assert_allclose(after.history[-1]["moved_mm"], -centre[:3])
    assert set(np.unique(after.image[1])) == {0, 2}
    label_ml = (after.image[1] == 2).sum() / 1000
    assert label_ml == pytest.approx((before.image[1] == 2).sum() * 12 / 1000, rel=0.02)


def test_a_given_centre_keeps_the_world() -> None:
    before = scan(las())
    after = conform(before, ConformConfig(size=160, centre_mm=(10.0, 40.0, 60.0)))
    np.testing.assert_allclose(peak_mm(after), peak_mm(before), atol=0.02)
    np.testing.assert_allclose(after.affine @ [79, 80, 79, 1], [10, 40, 60, 1])


def test_tilted_scans_come_out_upright() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    before = reorient(scan(turn @ las()), ReorientConfig())
    after = conform(before, ConformConfig(size=160, centre_mm=tuple(peak_mm(before).tolist())))
    np.testing.assert_array_equal(after.affine[:3, :3], np.eye(3))
    np.testing.assert_allclose(peak_mm(after), peak_mm(before), atol=0.05)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="of the foreground lies outside 16 voxels of 1 mm"):
        conform(scan(las()), ConformConfig(size=16))
    with pytest.raises(UsageError, match="size is 0"):
        ConformConfig(size=0)
