from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gyri.evaluation.features.radiomics import (
    DIRECTIONS,
    FIRST_ORDER_NAMES,
    GLCM_NAMES,
    NUM_LEVELS,
    Radiomics,
    co_occurrence,
    first_order,
    glcm_features,
    laplacian_of_gaussian,
)
from gyri.evaluation.segment import fit_tissue_model, segment


def test_counts_of_features():
    assert (len(FIRST_ORDER_NAMES), len(GLCM_NAMES), len(DIRECTIONS)) == (18, 22, 13)


def test_first_order_of_a_gaussian():
    values = np.random.default_rng(0).standard_normal(200_000) + 3
    levels = np.zeros(len(values), np.int64)
    found = dict(zip(FIRST_ORDER_NAMES, first_order(values, levels)))
    assert found["mean"] == pytest.approx(3, abs=0.02)
    assert found["interquartile_range"] == pytest.approx(1.349, abs=0.02)
    assert found["skewness"] == pytest.approx(0, abs=0.05)
    assert found["kurtosis"] == pytest.approx(3, abs=0.1)
    assert found["root_mean_square"] == pytest.approx(np.sqrt(10), abs=0.02)
    assert (found["entropy"], found["uniformity"]) == (0.0, 1.0)


def test_first_order_of_two_voxels_is_finite():
    found = first_order(np.array([0.2, 0.6]), np.array([3, 9]))
    assert np.isfinite(found).all()
    assert found[FIRST_ORDER_NAMES.index("robust_mean_absolute_deviation")] == pytest.approx(0.2)


def test_co_occurrence_matches_a_count_by_hand():
    rng = np.random.default_rng(1)
    levels = rng.integers(0, NUM_LEVELS, (4, 5, 3)).astype(np.uint8)
    mask = rng.random((4, 5, 3)) < 0.7
    expected = np.zeros((NUM_LEVELS, NUM_LEVELS))
    places = set(map(tuple, np.argwhere(mask)))
    for place in places:
        for direction in DIRECTIONS:
            other = tuple(np.add(place, direction))
            if other in places:
                expected[levels[place], levels[other]] += 1
                expected[levels[other], levels[place]] += 1
    np.testing.assert_allclose(co_occurrence(levels, mask), expected / expected.sum())


def test_glcm_of_a_constant_and_of_independent_levels():
    constant = np.zeros((NUM_LEVELS, NUM_LEVELS))
    constant[4, 4] = 1.0
    found = dict(zip(GLCM_NAMES, glcm_features(constant)))
    assert found["contrast"] == found["joint_entropy"] == found["sum_of_squares"] == 0
    assert found["correlation"] == found["maximum_probability"] == found["joint_energy"] == 1
    assert found["joint_average"] == 5
    uniform = np.full((NUM_LEVELS, NUM_LEVELS), NUM_LEVELS**-2.0)
    found = dict(zip(GLCM_NAMES, glcm_features(uniform)))
    assert found["joint_entropy"] == pytest.approx(2 * np.log2(NUM_LEVELS))
    assert found["correlation"] == pytest.approx(0, abs=1e-9)
    assert found["information_correlation_1"] == pytest.approx(0, abs=1e-9)
    assert found["contrast"] == pytest.approx((NUM_LEVELS**2 - 1) / 6)


def test_laplacian_of_gaussian_matches_the_spatial_filter():
    image = np.zeros((40, 44, 36), np.float32)
    image[12:28, 14:30, 12:24] = np.random.default_rng(2).random((16, 16, 12))
    ours = laplacian_of_gaussian(image, (2.0, 2.0, 2.0), 4.0)
    theirs = ndimage.gaussian_laplace(image.astype(float), 2.0, truncate=6) * 2.0**2
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_scales_below_the_spacing_are_left_out(cohort):
    model = fit_tissue_model(cohort["TRAIN"])
    features = Radiomics()
    features.fit(segment(cohort["TRAIN"].take(np.arange(4)), model))
    assert features.scales_mm == (0.0,)
    assert len(features.names) == 40
