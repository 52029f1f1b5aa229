"""T11 to T14."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.manifold import Manifold, coverage_null, equal_subsets, prdc


def test_a_copy_is_perfect_and_its_density_exactly_one():
    x = np.random.default_rng(0).standard_normal((60, 4))
    assert prdc(x, x.copy()) == pytest.approx(
        {"precision": 1, "recall": 1, "density": 1, "coverage": 1}, abs=1e-12
    )


def test_far_apart_nothing_is_covered():
    x = np.random.default_rng(1).standard_normal((30, 3))
    assert set(prdc(x, x + 1e3).values()) == {0.0}


def test_coverage_and_density_of_equal_distributions():
    rng = np.random.default_rng(2)
    found = [prdc(*rng.standard_normal((2, 400, 16))) for _ in range(4)]
    assert coverage_null(400) == pytest.approx(0.969, abs=5e-4)
    assert np.mean([f["coverage"] for f in found]) == pytest.approx(coverage_null(400), abs=0.015)
    assert 0.95 < np.mean([f["density"] for f in found]) < 1.02
    assert np.mean([f["precision"] for f in found]) == pytest.approx(0.87, abs=0.03)


def test_subsets_are_equal_and_within_both_sets():
    pairs = equal_subsets(30, 12, np.random.default_rng(0))
    assert len(pairs) > 1
    assert all(len(a) == len(b) == 12 and len(set(a)) == 12 for a, b in pairs)
    assert len(equal_subsets(9, 9, np.random.default_rng(0))) == 1


def test_too_few_volumes_are_refused(judge, cohort):
    few = judge.evidence(cohort["generated"].take(np.arange(6)))
    with pytest.raises(Refusal, match="at least 7"):
        Manifold().scores(few, judge.study)
