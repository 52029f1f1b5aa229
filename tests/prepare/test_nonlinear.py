from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from tests.prepare.heads import dice

from gyri.errors import DataError, UnavailableError, UsageError
from gyri.prepare.itk import resampled
from gyri.prepare.nonlinear import NonlinearConfig, jacobian_determinant, nonlinear
from gyri.prepare.scan import PreparedScan
from gyri.prepare.template import mni152
from gyri.types import Channel

SHEAR = 0.05
CHANNELS = (Channel("T1w"), Channel("tissue", "label", 3))


def tissue() -> np.ndarray:
    """Return (I, J, K) labels of the template: 0 outside, 1 grey and fluid, 2 white."""
    template = mni152()
    return template.mask.astype(int) + (template.image > 0.75)


@pytest.fixture(scope="module")
def bent() -> PreparedScan:
    """The template bent by a smooth known warp, with labels, on a grid with shear."""
    template = mni152()
    affine = template.affine.copy()
    affine[0, 1] = SHEAR * affine[1, 1]
    affine[0, 3] += SHEAR * 110
    index = np.indices(template.mask.shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    waves = np.sin(world[[1, 2, 0]] / 18 + [[0], [1], [2]])
    places = np.linalg.solve(template.affine[:3, :3], world + 6 * waves - template.affine[:3, 3:])
    image, labels = (
        map_coordinates(volume, places, order=order).reshape(template.mask.shape)
        for volume, order in ((template.image, 1), (tissue(), 0))
    )
    support = (image > 0.05).astype(np.float32)
    return PreparedScan(np.stack([image * support, labels]).astype(np.float32), CHANNELS, affine,
                        support)  # fmt: skip


@pytest.fixture(scope="module")
def straightened(bent: PreparedScan) -> PreparedScan:
    return nonlinear(bent, NonlinearConfig(iterations=(20, 0)))


def correlation(volume: np.ndarray) -> float:
    template = mni152()
    return float(np.corrcoef(volume[template.mask], template.image[template.mask])[0, 1])


def test_a_known_warp_is_undone(bent: PreparedScan, straightened: PreparedScan) -> None:
    template = mni152()
    grid = bent.affine, template.affine, straightened.shape
    flat = resampled(bent.image[0], *grid)
    flat_labels = resampled(bent.image[1], *grid, nearest=True)
    np.testing.assert_allclose(straightened.affine, template.affine)
    assert straightened.shape == template.mask.shape
    assert correlation(flat) < 0.75
    assert correlation(straightened.image[0]) > 0.9
    for label in (1, 2):
        before = dice(flat_labels == label, tissue() == label)
        after = dice(straightened.image[1] == label, tissue() == label)
        assert 1 - after < (1 - before) / 2


def test_labels_stay_labels_and_the_warp_does_not_fold(straightened: PreparedScan) -> None:
    assert set(np.unique(straightened.image[1])) == {0, 1, 2}
    assert straightened.foreground.min() >= 0
    assert straightened.foreground.max() <= 1
    low, high = straightened.history[-1]["jacobian_range"]
    assert 0 < low < 1 < high


def test_the_jacobian_is_that_of_the_field() -> None:
    template = mni152()
    index = np.indices(template.mask.shape).transpose(1, 2, 3, 0).astype(np.float32)
    # x -> 1.1 x, y -> 0.8 y, z -> z + 0.3 x: the volume changes by 1.1 * 0.8.
    field = 2 * np.stack([0.1 * index[..., 0], -0.2 * index[..., 1], 0.3 * index[..., 0]], -1)
    mapping = SimpleNamespace(get_forward_field=lambda: field)
    np.testing.assert_allclose(jacobian_determinant(mapping, template), 0.88, atol=1e-3)


def test_the_grid_is_the_one_wanted(bent: PreparedScan) -> None:
    through = (1.0, 1.0, 1.0)
    after = nonlinear(bent, NonlinearConfig(iterations=(1,), spacing_mm=4.0, through_mm=through))
    np.testing.assert_allclose(after.affine[:3, :3], np.diag([4.0] * 3))
    np.testing.assert_allclose(np.mod(after.affine[:3, 3] - through, 4.0), 0, atol=1e-9)


def test_a_brain_elsewhere_is_refused(bent: PreparedScan) -> None:
    away = bent.affine.copy()
    away[2, 3] += 60
    scan = PreparedScan(bent.image, bent.channels, away, bent.foreground)
    with pytest.raises(DataError, match="Put register before nonlinear"):
        nonlinear(scan, NonlinearConfig())


def test_without_dipy_it_says_how_to_get_it(
    bent: PreparedScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dipy.align.imwarp", None)
    with pytest.raises(UnavailableError, match="pip install dipy"):
        nonlinear(bent, NonlinearConfig())


@pytest.mark.parametrize(
    "settings", [{"spacing_mm": 0}, {"iterations": ()}, {"iterations": (0, 0)}, {"radius": 0}]
)
def test_settings_that_mean_nothing_are_refused(settings: dict) -> None:
    with pytest.raises(UsageError, match="expected"):
        NonlinearConfig(**settings)
