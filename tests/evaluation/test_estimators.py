from __future__ import annotations

import numpy as np
import pytest
from tests.evaluation.people import people

from gyri.evaluation.estimators import SEEDS, Designs, block_means, fit_estimator
from gyri.evaluation.labels import Label, label


@pytest.fixture(scope="module")
def train():
    return people(100, seed=1)


@pytest.fixture(scope="module")
def designs(train):
    return Designs(train)


def fitted(train, designs, column, continuous, seed=0):
    asked = label(column, continuous, train.volumes.table)
    assert isinstance(asked, Label)
    codes = asked.encode(train.volumes.table)
    return fit_estimator(asked, designs, codes, train.volumes.ids, seed)


def test_blocks_are_means_and_zeros_fill_the_last():
    volumes = np.arange(2 * 4 * 4 * 5, dtype=np.float32).reshape(2, 4, 4, 5)
    blocks = block_means(volumes, (4.0, 4.0, 4.0)).reshape(2, 2, 2, 3)
    assert blocks[1, 0, 1, 0] == pytest.approx(volumes[1, :2, 2:4, :2].mean())
    assert blocks[1, 0, 1, 2] == pytest.approx(volumes[1, :2, 2:4, 4].sum() / 8)
    np.testing.assert_allclose(block_means(volumes, (8.0, 8.0, 8.0)), volumes.reshape(2, -1))


def test_principal_axes_keep_all_distances_of_train(train, designs):
    from scipy.spatial.distance import pdist

    raw = train.volumes.volumes.reshape(len(train), -1)
    np.testing.assert_allclose(pdist(designs.train["image"]), pdist(raw), rtol=1e-4)


def test_numbers_and_levels_are_estimated_from_where_they_show(train, designs):
    others = people(80, seed=2)
    views = designs(others)
    age = fitted(train, designs, "age", True)
    assert age.view == "features"
    found = age.estimate(views)
    assert found.shape == (SEEDS, 80, 1)
    true = others.volumes.table["age"].to_numpy()
    assert np.corrcoef(found.mean(0)[:, 0], true)[0, 1] > 0.8
    sex = fitted(train, designs, "sex", False).estimate(views)
    np.testing.assert_allclose(sex.sum(2), 1.0)
    right = sex.mean(0).argmax(1) == (others.volumes.table["sex"] == "M")
    assert right.mean() > 0.9


def test_seeds_differ_and_repeat(train, designs):
    views = designs(people(20, seed=3))
    found = fitted(train, designs, "age", True).estimate(views)
    assert len({round(float(v), 9) for v in found[:, 0, 0]}) == SEEDS
    np.testing.assert_array_equal(found, fitted(train, designs, "age", True).estimate(views))
