from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.features.sliced import (
    BLOCK,
    NUM_DIRECTIONS,
    box_weights,
    brain_support,
    coarse_rows,
    masked_downsample,
    orthonormal_directions,
)


@pytest.mark.parametrize("size", [32, 40, 80, 96, 33])
def test_cells_share_voxels_and_lose_none(size):
    weights = box_weights(size, 32)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(0), 32 / size, rtol=1e-5)


def test_a_cell_is_the_mean_of_its_box():
    images = np.random.default_rng(0).random((2, 64, 96, 32), dtype=np.float32)
    coarse = masked_downsample(images, np.ones(images.shape[1:], bool))
    expected = images.reshape(2, 32, 2, 32, 3, 32, 1).mean((2, 4, 6))
    np.testing.assert_allclose(coarse, expected, rtol=1e-5)


def test_outside_the_mask_nothing_counts_and_nothing_is_enlarged():
    images = np.random.default_rng(1).random((3, 20, 40, 10), dtype=np.float32)
    mask = np.zeros(images.shape[1:], bool)
    mask[5:15, 10:30, 2:8] = True
    coarse = masked_downsample(images, mask)
    assert coarse.shape == (3, 20, 32, 10)
    other = np.where(mask, images, 7).astype(np.float32)
    np.testing.assert_array_equal(masked_downsample(other, mask), coarse)
    rows = coarse_rows(images, mask)
    assert rows.shape[1] < coarse[0].size
    assert rows.sum() == pytest.approx(coarse.sum(), rel=1e-5)


def test_support_is_where_the_mean_is_bright():
    images = np.zeros((4, 3, 3, 3), np.float32)
    images[:, 1, 1, 1] = 1.0
    images[0, 0, 0, 0] = 0.1  # mean 0.025: below 5 %
    images[:, 2, 2, 2] = 0.06
    assert np.argwhere(brain_support(images)).tolist() == [[1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("dimensions", [5, 200])
def test_directions_are_orthonormal_within_blocks(dimensions):
    directions = orthonormal_directions(dimensions, 130, np.random.default_rng(2))
    assert directions.shape == (130, dimensions)
    block = min(dimensions, BLOCK)
    for start in range(0, 130, block):
        part = directions[start : start + block]
        np.testing.assert_allclose(part @ part.T, np.eye(len(part)), atol=1e-12)
    np.testing.assert_array_equal(
        directions, orthonormal_directions(dimensions, 130, np.random.default_rng(2))
    )


def test_directions_have_no_preferred_sign():
    first = np.array(
        [orthonormal_directions(3, 3, np.random.default_rng(s)).sum(0) for s in range(400)]
    )
    assert (np.abs(first.mean(0)) < 4 / np.sqrt(400)).all()


def test_projections_are_linear_and_the_same_in_every_batch(judge, cohort):
    from gyri.evaluation.segment import segment

    sliced = judge.feature_sets["sw-v1"]
    assert len(sliced.names) == NUM_DIRECTIONS
    found = [
        sliced.extract(segment(cohort["HOLD"].take(np.array(rows)), judge.extractor.model))
        for rows in ([0, 1, 2], [1], [2])
    ]
    np.testing.assert_array_equal(found[0][1:], np.concatenate(found[1:]))
    images = cohort["HOLD"].volumes[:2, 0]
    mask = sliced.state["mask"] > 0
    total = coarse_rows(images.sum(0, keepdims=True), mask)[0]
    np.testing.assert_allclose(total, coarse_rows(images, mask).sum(0), rtol=1e-4, atol=1e-5)
