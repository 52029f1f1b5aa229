"""T1 to T7 of the evaluation's closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.features import extraction
from gyri.evaluation.metrics.frechet import (
    FrechetDistance,
    eigen_trace,
    frechet_distance,
    frechet_infinity,
    nuclear_trace,
    num_dimensions,
    resampled_distances,
)


def draw(seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) / np.sqrt(d) + 1.5


@pytest.mark.parametrize(("n", "d"), [(200, 10), (20, 60)])
def test_equal_sets_are_at_distance_zero(n, d):
    x = draw(0, n, d)
    assert abs(frechet_distance(x, x)) < 1e-9 * x.var(0).sum()


@pytest.mark.parametrize(("n", "d"), [(200, 10), (20, 60)])
def test_a_shift_costs_its_square(n, d):
    x, shift = draw(0, n, d), np.linspace(-1, 2, d)
    assert frechet_distance(x, x + shift) == pytest.approx(shift @ shift, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(200, 10), (20, 60)])
def test_a_scale_costs_what_the_moments_say(n, d):
    x, a = draw(0, n, d), 1.7
    mean = x.mean(0)
    expected = (a - 1) ** 2 * (x.var(0, ddof=1).sum() + mean @ mean)
    assert frechet_distance(x, a * x) == pytest.approx(expected, rel=1e-12)


def test_one_dimension_is_the_textbook_formula():
    x, y = draw(1, 300, 1), 2 * draw(2, 200, 1) - 3
    sd = x.std(ddof=1) - y.std(ddof=1)
    assert frechet_distance(x, y) == pytest.approx((x.mean() - y.mean()) ** 2 + sd**2, rel=1e-9)


def test_nuclear_and_eigen_forms_agree():
    a, b = draw(3, 150, 12), draw(4, 90, 12)
    assert nuclear_trace(a, b) == pytest.approx(float(eigen_trace(a.T @ a, b.T @ b)), rel=1e-8)


def test_bias_of_equal_gaussians_and_its_removal():
    rng = np.random.default_rng(5)
    raw, limit = [], []
    for _ in range(3):
        x, y = rng.standard_normal((2, 400, 64))
        raw.append(frechet_distance(x, y))
        limit.append(frechet_infinity(x, y, rng))
    assert np.mean(raw) == pytest.approx(5.5, abs=0.7)
    assert np.mean(limit) == pytest.approx(0.0, abs=0.5)


def test_rows_and_rotation_do_not_matter():
    x, y = draw(6, 80, 8), draw(7, 60, 8)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    value = frechet_distance(x, y)
    assert frechet_distance(x[::-1], y) == pytest.approx(value, rel=1e-10)
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(value, rel=1e-9)


def test_batches_do_not_matter_and_no_reference_row_is_repeated(judge, cohort, monkeypatch):
    before = judge.evidence(cohort["generated"]).raw
    monkeypatch.setattr(extraction, "CHUNK", 3)
    after = judge.evidence(cohort["generated"]).raw
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
        assert len(np.unique(judge.study.hold.features[name], axis=0)) == len(judge.study.hold)


def test_resamples_count_rows_as_repeats_do():
    x, y = draw(8, 40, 5), draw(9, 30, 5)
    counts = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), size=3).astype(float)
    expected = [frechet_distance(np.repeat(x, c.astype(int), 0), y) for c in counts]
    found = resampled_distances(x, y, counts, np.ones((3, 30)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_dimensions_follow_train():
    assert num_dimensions(150, 120) == 15
    assert num_dimensions(150, 8) == 8
    assert num_dimensions(2000, 120) == 64
    assert num_dimensions(9, 120) == 1


def test_below_four_samples_a_dimension_the_score_is_unreliable(judge, cohort):
    evidence = judge.evidence(cohort["generated"])  # p = 3 from 30 TRAIN subjects
    enough = FrechetDistance().scores(evidence.take(np.arange(12)), judge.study)
    assert all(s.reliable for s in enough)
    few = FrechetDistance().scores(evidence.take(np.arange(11)), judge.study)
    assert not any(s.reliable for s in few)
    assert all("kernel distance" in s.note for s in few if s.key.startswith("fd/"))
    assert not any(s.key.startswith("fd_infinity/") for s in few)  # k >= 4 p at every size


def test_interval_holds_the_value(judge, cohort):
    for score in FrechetDistance().scores(judge.evidence(cohort["generated"]), judge.study):
        assert score.low <= score.value <= score.high
