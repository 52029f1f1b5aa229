from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.rbf import RbfDistance, median_width, rbf_distance


def gaussian_mmd(variance_x: float, variance_y: float, shift: float, d: int, width: float) -> float:
    """Closed form for isotropic Gaussians in d dimensions."""

    def mean_kernel(variance: float, gap: float) -> float:
        scale = width + variance
        return (width / scale) ** (d / 2) * np.exp(-(gap**2) / (2 * scale))

    return (
        mean_kernel(2 * variance_x, 0)
        + mean_kernel(2 * variance_y, 0)
        - 2 * mean_kernel(variance_x + variance_y, shift)
    )


def test_constants():
    x, y = np.zeros((5, 1)), np.ones((4, 1))
    assert rbf_distance(x, y, 0.5) == pytest.approx(2 - 2 * np.exp(-1))


@pytest.mark.parametrize(("variance", "shift"), [(4.0, 0.0), (1.0, 1.0)])
def test_gaussians_have_the_closed_form(variance, shift):
    rng = np.random.default_rng(0)
    move = np.array([shift, 0.0])
    values = [
        rbf_distance(a, np.sqrt(variance) * b + move, 1.5)
        for a, b in rng.standard_normal((40, 2, 100, 2))
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    expected = gaussian_mmd(1.0, variance, shift, 2, 1.5)
    assert expected > 0.02  # a variance alone is seen
    assert np.mean(values) == pytest.approx(expected, abs=3 * error)


def test_equal_distributions_average_to_zero_and_go_below():
    rng = np.random.default_rng(1)
    values = np.array([rbf_distance(*pair, 4.0) for pair in rng.standard_normal((200, 2, 20, 4))])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(200)
    assert (values < 0).any()


def test_width_is_the_median_squared_distance():
    assert median_width(np.array([[0.0], [1.0]]), np.array([[3.0], [0.0]])) == 2.5
    with pytest.raises(Refusal, match="no width"):
        median_width(np.ones((3, 2)), np.ones((3, 2)))


def test_width_is_frozen_whatever_is_generated(judge, cohort, changed):
    good = RbfDistance().scores(judge.evidence(cohort["generated"]), judge.study)
    volumes = cohort["generated"].volumes
    bad = RbfDistance().scores(judge.evidence(changed(volumes[..., ::-1] * 0.5)), judge.study)
    assert [s.note for s in good] == [s.note for s in bad]
    for better, worse in zip(good, bad):
        assert better.value < worse.value
        assert better.low < better.value < better.high
        assert better.p_value > 0.01 > worse.p_value
