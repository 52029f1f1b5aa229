from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.effects import (
    cohens_d,
    compare,
    holm,
    kolmogorov_smirnov,
    normal_interval,
    varying,
    wasserstein,
    weighted_d,
)


def test_closed_forms():
    x = np.arange(40.0)
    assert cohens_d(x, x + x.std(ddof=1)) == pytest.approx(1.0)
    assert wasserstein(x, x + 3.0) == pytest.approx(3.0)
    assert kolmogorov_smirnov(x, x)[0] == 0.0
    assert kolmogorov_smirnov(x, x + 100.0)[0] == 1.0
    assert np.isnan(cohens_d(np.ones(5), np.zeros(5)))


def test_weights_count_rows_as_repeats_do():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(10), rng.standard_normal(8) + 1
    counts = rng.multinomial(10, np.full(10, 0.1), size=2).astype(float)
    expected = [cohens_d(np.repeat(x, c.astype(int)), y) for c in counts]
    np.testing.assert_allclose(weighted_d(x, y, counts, np.ones((2, 8))), expected)


def test_holm_steps_down():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])


def test_holm_keeps_the_error_of_the_whole_family():
    rng = np.random.default_rng(1)
    rejected = [(holm(rng.random(19)) < 0.05).any() for _ in range(2000)]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.02)


def test_the_normal_interval_covers():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(500):
        d = cohens_d(rng.standard_normal(60), rng.standard_normal(40) + 0.5)
        low, high = normal_interval(d, 60, 40)
        hits += low < 0.5 < high
    assert hits / 500 == pytest.approx(0.95, abs=0.03)


def test_every_varying_feature_is_compared_with_intervals_around_it(judge, cohort):
    effects = compare(judge.evidence(cohort["generated"]), judge.study)
    assert list(effects) == varying(judge.study)
    assert "components" not in effects
    assert all(e.low <= e.d <= e.high for e in effects.values())
    plain = compare(judge.evidence(cohort["generated"]), judge.study.without_intervals())
    for name, effect in effects.items():
        assert plain[name].d == effect.d
        # 16 against 20 phantoms: both intervals are near 1.3 wide.
        assert plain[name].high - plain[name].low == pytest.approx(
            effect.high - effect.low, rel=0.5
        )
