from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter

from gyri.cohort.average import average_runs
from gyri.errors import DataError

AFFINE = np.diag([-4.0, 4.0, 4.0, 1.0])


def head(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    i, j, k = np.indices((32, 36, 30))
    inside = ((i - 15) / 11) ** 2 + ((j - 17) / 13) ** 2 + ((k - 14) / 10) ** 2 < 1
    texture = gaussian_filter(rng.normal(size=inside.shape), 2)
    # Smooth edges: what is left after alignment is then not the interpolation of a step.
    return gaussian_filter(np.where(inside, 100 + 300 * texture, 0), 1.5)


def moved(volume: np.ndarray, degrees: float, shift: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    centre = (np.array(volume.shape) - 1) / 2
    return affine_transform(volume, turn, centre - turn @ centre + shift, order=3)


def test_moved_repetitions_come_back(tmp_path: object) -> None:
    still = head()
    runs = [(still, AFFINE), (moved(still, 4, 0.7), AFFINE), (moved(still, -3, -0.5), AFFINE)]
    mean, affine = average_runs(runs)
    inner = (slice(4, -4),) * 3
    naive = np.mean([array for array, _ in runs], axis=0)
    error = np.abs(mean - still)[inner].mean()
    assert error < 0.35 * np.abs(naive - still)[inner].mean()
    np.testing.assert_array_equal(affine, AFFINE)
    again, _ = average_runs(runs)
    np.testing.assert_array_equal(mean, again)


def test_one_repetition_is_itself() -> None:
    mean, _ = average_runs([(head(), AFFINE)])
    np.testing.assert_allclose(mean, head(), rtol=1e-6)
    with pytest.raises(DataError, match="no scans"):
        average_runs([])
