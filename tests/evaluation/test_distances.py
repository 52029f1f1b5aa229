from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gyri.evaluation.distances import below, paired, squared_distances


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_distances_are_those_of_the_differences(offset):
    x, y = np.random.default_rng(0).standard_normal((2, 30, 7)) + offset
    y[3] = x[5] + 1e-7
    np.testing.assert_allclose(squared_distances(x, y), cdist(x, y, "sqeuclidean"), rtol=1e-9)


def test_equal_rows_are_at_zero():
    x = np.random.default_rng(1).standard_normal((20, 9)) * 1e3
    assert (np.diagonal(squared_distances(x, x)) == 0).all()
    assert (np.diagonal(squared_distances(x, x.copy())) == 0).all()
    assert (squared_distances(np.ones((4, 3)), np.ones((5, 3))) == 0).all()


def test_a_tie_is_outside_however_the_product_rounds():
    x = np.random.default_rng(2).standard_normal((50, 33))
    neighbour = np.roll(np.arange(50), 1)
    radius = paired(x, x, np.arange(50), neighbour)
    for turn in (1 + 1e-15, 1 - 1e-15):
        inside = below(squared_distances(x, x.copy()) * turn, radius, x, x.copy())
        assert not inside[np.arange(50), neighbour].any()
        assert inside[np.arange(50), np.arange(50)].all()
