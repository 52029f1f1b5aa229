"""T19."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gyri.evaluation.features.sliced import orthonormal_directions
from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein


@pytest.mark.parametrize("d", [1, 7, 48])
def test_a_shift_costs_its_square_over_the_dimensions(d):
    rng = np.random.default_rng(0)
    x, shift = rng.standard_normal((30, d)), np.linspace(-1, 2, d)
    directions = orthonormal_directions(d, 3 * d, rng)  # whole blocks
    found = sliced_wasserstein(x @ directions.T, (x + shift) @ directions.T)
    assert found == pytest.approx(shift @ shift / d, rel=1e-12)


def test_independent_directions_come_within_15_percent():
    rng = np.random.default_rng(1)
    x, shift = rng.standard_normal((30, 500)), np.linspace(-1, 2, 500)
    directions = rng.standard_normal((1024, 500))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = sliced_wasserstein(x @ directions.T, (x + shift) @ directions.T)
    assert found == pytest.approx(shift @ shift / 500, rel=0.15)


@pytest.mark.parametrize(("n", "m"), [(6, 6), (6, 9), (5, 7)])
def test_different_sizes_are_matched_by_quantiles(n, m):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 1
    common = n * m
    whole = np.sort(np.repeat(x, common // n, 0), 0) - np.sort(np.repeat(y, common // m, 0), 0)
    assert sliced_wasserstein(x, y) == pytest.approx((whole**2).mean(), rel=1e-12)
    assert sliced_wasserstein(x, x[::-1]) == 0.0


def test_a_brighter_cohort_is_farther(judge, cohort, changed):
    volumes = cohort["generated"].volumes
    found = [
        SlicedWasserstein().scores(judge.evidence(changed(volumes * gain)), judge.study)[0]
        for gain in (1.0, 0.8, 0.6)
    ]
    assert found[0].value < found[1].value < found[2].value
    assert all(s.low <= s.value <= s.high for s in found)


def test_without_its_features_it_is_refused(judge, cohort):
    evidence = replace(judge.evidence(cohort["generated"]), raw={})
    with pytest.raises(Refusal, match="sw-v1"):
        SlicedWasserstein().scores(evidence, judge.study)
