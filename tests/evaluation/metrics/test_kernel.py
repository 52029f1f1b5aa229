"""T8 to T10."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics.kernel import (
    cubic_kernel,
    kernel_distance,
    permutation_p_value,
    weighted_distances,
)


def test_constants_in_one_dimension():
    assert kernel_distance(np.ones((5, 1)), np.zeros((7, 1))) == pytest.approx(8 + 1 - 2)


def test_equal_distributions_average_to_zero_and_go_below():
    rng = np.random.default_rng(0)
    values = np.array([kernel_distance(*rng.standard_normal((2, 20, 4))) for _ in range(200)])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(200)
    assert (values < 0).any()


def test_sees_variance_where_a_linear_kernel_does_not():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((500, 1)), 2 * rng.standard_normal((500, 1))
    x, y = x - x.mean(), y - y.mean()
    linear = float((x.mean(0) - y.mean(0)) @ (x.mean(0) - y.mean(0)))
    assert linear < 1e-20
    pooled = np.concatenate([x, y])
    assert permutation_p_value(cubic_kernel(pooled, pooled), 500, 200, rng) < 0.01


def test_p_value_is_uniform_under_equality():
    rng = np.random.default_rng(2)
    p = []
    for _ in range(120):
        pooled = rng.standard_normal((30, 3))
        p.append(permutation_p_value(cubic_kernel(pooled, pooled), 15, 99, rng))
    assert np.mean(np.array(p) <= 0.1) < 0.2
    assert 0.4 < np.mean(p) < 0.6


def test_rows_drawn_twice_are_not_paired_with_themselves():
    x, y = np.random.default_rng(3).standard_normal((2, 6, 2))
    pooled = np.concatenate([x, y])
    kernel = cubic_kernel(pooled, pooled)
    counts = np.array([[2.0, 0, 1, 1, 2, 0]])
    rows = np.repeat(np.arange(6), counts[0].astype(int))
    pairs = [(a, b) for a in rows for b in rows if a != b]
    expected_xx = np.mean([kernel[a, b] for a, b in pairs])
    yy = (kernel[6:, 6:].sum() - np.trace(kernel[6:, 6:])) / 30
    expected = expected_xx + yy - 2 * kernel[rows][:, 6:].mean()
    found = weighted_distances(kernel, 6, counts, np.ones((1, 6)))
    assert found[0] == pytest.approx(expected)
