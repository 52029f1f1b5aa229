from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics.volumes import (
    TISSUES,
    Volumes,
    cohens_d,
    kolmogorov_smirnov,
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


def test_scores_of_unseen_phantoms(judge, cohort):
    scores = {s.key: s for s in Volumes().scores(judge.evidence(cohort["generated"]), judge.study)}
    assert len(scores) == 4 * len(TISSUES) + 1
    mean = scores["volumes/brain_ml/mean"]
    assert mean.low <= mean.value <= mean.high
    assert mean.unit == "ml"
    assert scores["volumes/in_range"].value >= 0.8
    assert "HOLD outside" in scores["volumes/in_range"].note


def test_shrunken_brains_leave_the_range(judge, cohort, changed):
    volumes = cohort["generated"].volumes.copy()
    volumes[:, :, :, 12:] = 0
    evidence = judge.evidence(changed(volumes))
    scores = {s.key: s for s in Volumes().scores(evidence, judge.study)}
    assert scores["volumes/in_range"].value == 0.0
    assert scores["volumes/brain_ml/d"].value < -2
    assert not any(Volumes().samples(evidence, judge.study)["brain_in_range"])
