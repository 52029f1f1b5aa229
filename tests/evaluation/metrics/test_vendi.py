from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics.vendi import Vendi, cosine_kernel, vendi_score


def test_identical_items_are_one_and_orthogonal_ones_n():
    assert vendi_score(cosine_kernel(np.ones((7, 3)))) == pytest.approx(1.0)
    assert vendi_score(cosine_kernel(np.eye(7) * 5)) == pytest.approx(7.0)
    groups = np.repeat(np.eye(4), [3, 3, 3, 3], axis=0)
    assert vendi_score(cosine_kernel(groups)) == pytest.approx(4.0)


def test_two_items_at_an_angle_have_the_closed_form():
    cosine = 0.3
    x = np.array([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]])
    p = np.array([1 + cosine, 1 - cosine]) / 2
    assert vendi_score(cosine_kernel(x)) == pytest.approx(np.exp(-(p @ np.log(p))))


def test_rows_without_direction_are_alike_and_like_nothing_else():
    x = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(cosine_kernel(x), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_counts_are_repeats():
    x = np.random.default_rng(0).standard_normal((6, 3))
    counts = np.array([2.0, 0, 1, 1, 2, 0])
    repeated = np.repeat(x, counts.astype(int), axis=0)
    assert vendi_score(cosine_kernel(x), counts) == pytest.approx(
        vendi_score(cosine_kernel(repeated))
    )


def test_dropped_modes_lower_it_below_real_subjects(judge, cohort, changed):
    volumes = cohort["generated"].volumes
    two = changed(volumes[np.arange(16) % 2])
    for full, dropped in zip(
        Vendi().scores(judge.evidence(cohort["generated"]), judge.study),
        Vendi().scores(judge.evidence(two), judge.study),
    ):
        assert dropped.value <= 2.0 + 1e-9 < full.value
        assert full.low <= full.value <= full.high
        assert full.value == pytest.approx(full.target, rel=0.5)
        assert "n=16]" in full.name
