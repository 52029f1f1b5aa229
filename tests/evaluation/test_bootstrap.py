from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.bootstrap import (
    bca_interval,
    centred_interval,
    draw_counts,
    mean_interval,
    percentile_interval,
    share_interval,
)


def test_rows_of_a_subject_are_drawn_together():
    counts = draw_counts(["a", "b", "a", "c"], 50, np.random.default_rng(0))
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, [0, 1, 3]].sum(1) == 3).all()


def test_mean_interval_covers_and_matches_the_t_interval():
    rng = np.random.default_rng(1)
    hits, widths = 0, []
    for _ in range(150):
        x = rng.standard_normal(40)
        low, high = mean_interval(x, [str(i) for i in range(40)], 400, rng)
        hits += low <= 0 <= high
        widths.append(high - low)
    assert 0.88 <= hits / 150 <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 / np.sqrt(40), rel=0.08)


def test_repeated_sessions_do_not_narrow_the_interval():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(30)
    ids = [str(i) for i in range(30)]
    once = np.diff(mean_interval(x, ids, 2000, np.random.default_rng(3)))[0]
    twice = np.diff(mean_interval(np.r_[x, x], ids + ids, 2000, np.random.default_rng(3)))[0]
    assert twice == pytest.approx(once, rel=0.1)


def test_bca_moves_towards_the_long_tail():
    rng = np.random.default_rng(4)
    x = rng.exponential(size=60)
    counts = draw_counts([str(i) for i in range(60)], 4000, rng)
    replicates = counts @ x / 60
    jackknife = (x.sum() - x) / 59
    low, high = bca_interval(float(x.mean()), replicates, jackknife)
    plain_low, plain_high = percentile_interval(replicates)
    assert low > plain_low
    assert high > plain_high


def test_centred_interval_removes_the_second_bias():
    replicates = np.random.default_rng(5).normal(12.0, 1.0, 5000)
    low, high = centred_interval(10.0, replicates)
    assert (low, high) == pytest.approx((10 - 1.96, 10 + 1.96), abs=0.1)


def test_wilson_intervals():
    assert share_interval(50, 100) == pytest.approx((0.404, 0.596), abs=5e-4)
    low, high = share_interval(16, 16)
    assert 0.75 < low < 0.85
    assert high == pytest.approx(1.0)


def test_nothing_to_resample_gives_no_interval():
    assert np.isnan(mean_interval(np.ones(1), ["a"], 100, np.random.default_rng(0))).all()
    assert np.isnan(mean_interval(np.ones(5), list("abcde"), 0, np.random.default_rng(0))).all()
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
