from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gyri.errors import UsageError
from gyri.prepare.resample import ResampleConfig, covering_grid, resample
from gyri.prepare.scan import PreparedScan
from gyri.types import Channel

T1W = (Channel("T1w"),)


def world(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return (3, I, J, K) positions in millimetres."""
    grid = np.indices(shape).reshape(3, -1)
    positions = affine[:3, :3] @ grid + affine[:3, 3:]
    return positions.reshape(3, *shape)


def blob(affine: np.ndarray, shape: tuple[int, ...], width_mm: float, at: np.ndarray) -> np.ndarray:
    away = world(affine, shape) - at[:, None, None, None]
    return np.exp(-(away**2).sum(axis=0) / (2 * width_mm**2)).astype(np.float32)


def prepared(volume: np.ndarray, affine: np.ndarray) -> PreparedScan:
    return PreparedScan(volume[None], T1W, affine, (volume > 0.1).astype(np.float32))


def diagonal(*spacing: float) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20, -25, -30)
    return affine


def test_same_grid_is_left_alone() -> None:
    volume = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    before = prepared(volume, diagonal(2, 2, 2))
    after = resample(before, ResampleConfig(spacing_mm=2.0))
    assert after.image is before.image
    assert after.history[0]["unchanged"] is True


@pytest.mark.parametrize("tilted", [False, True])
def test_a_gaussian_becomes_the_wider_gaussian(tilted: bool) -> None:
    # Closed form: the point spread function adds (4^2 - 1^2) / (8 ln 2) to the variance; linear
    # interpolation adds less than 1 mm2 more.
    shape, affine = (60, 60, 60), diagonal(1, 1, 1)
    if tilted:
        affine[:3, :3] = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix()
        affine[:3, 3] = -affine[:3, :3] @ np.full(3, 29.5) + (10, 5, 0)
    place = affine[:3, :3] @ np.full(3, 29.5) + affine[:3, 3] + np.array([2, -1, 3])
    volume = blob(affine, shape, 6.0, place)
    after = resample(prepared(volume, affine), ResampleConfig(spacing_mm=4.0))
    np.testing.assert_allclose(after.affine[:3, :3], np.diag([4.0, 4, 4]))
    image, places = after.image[0].astype(float), world(after.affine, after.shape)
    mass = image.sum()
    mean = (places * image).sum(axis=(1, 2, 3)) / mass
    variance = ((places - mean[:, None, None, None]) ** 2 * image).sum(axis=(1, 2, 3)) / mass
    np.testing.assert_allclose(mean, place, atol=0.1)
    expected = 36 + 15 / (8 * np.log(2))
    assert (variance > expected - 0.6).all()
    assert (variance < expected + 1.0).all()
    np.testing.assert_allclose(mass * 64, volume.sum(), rtol=0.02)


def test_no_aliasing() -> None:
    # A chequerboard of single voxels is above the coarse grid's limit and must become grey.
    board = (np.indices((40, 40, 40)).sum(axis=0) % 2).astype(np.float32)
    after = resample(prepared(board, diagonal(1, 1, 1)), ResampleConfig(spacing_mm=4.0))
    inner = after.image[0][2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, 0.5, atol=0.01)


def test_refining_interpolates_linearly() -> None:
    ramp = np.indices((10, 10, 10))[0].astype(np.float32)
    after = resample(prepared(ramp, diagonal(4, 4, 4)), ResampleConfig(spacing_mm=2.0))
    inner = after.image[0][2:-2, 5, 5]
    np.testing.assert_allclose(np.diff(inner), 0.5, atol=1e-5)
    assert after.history[0]["sigma_mm"] == [0, 0, 0]


def test_labels_stay_labels() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (20, 20, 20)).astype(np.float32)
    before = PreparedScan(
        np.stack([labels, labels]),
        (Channel("T1w"), Channel("dseg", "label", 4)),
        diagonal(1, 1, 1),
        np.ones(labels.shape, np.float32),
    )
    after = resample(before, ResampleConfig(spacing_mm=2.5))
    assert set(np.unique(after.image[1])) <= {0.0, 1.0, 2.0, 3.0}
    assert len(np.unique(after.image[0])) > 10


def test_grid_covers_and_shares_the_centre() -> None:
    affine = diagonal(0.87, 0.87, 1.0)
    shape, new = covering_grid(affine, (288, 288, 181), 4.0)
    assert shape == (63, 63, 46)
    middle = affine[:3, :3] @ np.array([143.5, 143.5, 90]) + affine[:3, 3]
    np.testing.assert_allclose(new[:3, :3] @ ((np.array(shape) - 1) / 2) + new[:3, 3], middle)


def test_unusable_spacing() -> None:
    with pytest.raises(UsageError, match="spacing_mm is 0"):
        ResampleConfig(spacing_mm=0)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.9, -3.7])
def test_voxels_lie_where_they_are_asked_to(shift: float) -> None:
    affine = diagonal(1.5, 1, 1)
    affine[:3, 3] += shift
    through = (-78.0, 2.0, 6.0)
    shape, new = covering_grid(affine, (30, 33, 37), 4.0, through)
    steps = (new[:3, 3] - through) / 4
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    old_low, old_high = (
        affine[:3, 3] - np.array([0.75, 0.5, 0.5]),
        affine[:3, 3] + np.array([29.5 * 1.5, 32.5, 36.5]),
    )
    assert (new[:3, 3] - 2 <= old_low + 0.01).all()
    assert (new[:3, 3] + 4 * (np.array(shape) - 0.5) >= old_high - 0.01).all()


def test_upright_and_general_grids_agree() -> None:
    volume = np.random.default_rng(0).random((24, 26, 22)).astype(np.float32)
    upright = prepared(volume, diagonal(1, 1, 1))
    nearly = diagonal(1, 1, 1)
    nearly[0, 1] = 2e-3
    tilted = prepared(volume, nearly)
    one = resample(upright, ResampleConfig(spacing_mm=2.5))
    two = resample(tilted, ResampleConfig(spacing_mm=2.5))
    assert one.shape == two.shape
    np.testing.assert_allclose(one.image, two.image, atol=0.03)
