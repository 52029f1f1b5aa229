"""T18."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics.unpaired import (
    BestMatch,
    UnpairedPsnr,
    nearest_errors,
    psnr,
    squared_errors,
)


def test_the_mean_image_wins_three_decibels():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((40, 20000)).astype(np.float32)
    zero = np.zeros(20000, np.float32)
    pairs = psnr(squared_errors(draws[:20], draws[20:], zero)).mean()
    mean = psnr(squared_errors(zero[None], draws[20:], zero)).mean()
    assert mean - pairs == pytest.approx(3.01, abs=0.1)


def test_noise_has_the_level_of_the_published_tables():
    uniform = np.random.default_rng(1).random((2, 50000)).astype(np.float32)
    centre = np.full(50000, 0.5, np.float32)
    error = squared_errors(uniform[:1], uniform[1:], centre)
    assert float(psnr(error)[0, 0]) == pytest.approx(7.78, abs=0.1)
    dark = squared_errors(uniform[:1], np.zeros((1, 50000), np.float32), centre)
    assert float(psnr(dark)[0, 0]) == pytest.approx(4.77, abs=0.1)


def test_errors_are_those_of_the_differences_and_ranges_are_declared():
    rng = np.random.default_rng(2)
    x, y = rng.random((3, 50), dtype=np.float32), rng.random((4, 50), dtype=np.float32)
    expected = ((x[:, None] - y[None]) ** 2).mean(-1)
    np.testing.assert_allclose(squared_errors(x, y, y.mean(0)), expected, rtol=1e-4)
    np.testing.assert_allclose(psnr(4 * expected, data_range=2.0), psnr(expected), rtol=1e-12)
    near = x[:1] + np.float32(1e-4)
    rough = squared_errors(near, x, x.mean(0))
    assert nearest_errors(rough, near, x)[0] == pytest.approx(1e-8, rel=0.05)


def scores(judge, volumes):
    evidence = judge.evidence(volumes)
    found = UnpairedPsnr().scores(evidence, judge.study)
    return {s.key: s for s in (*found, *BestMatch().scores(evidence, judge.study))}


def test_a_mean_image_is_suspicious_and_real_subjects_are_not(judge, cohort, changed):
    mean = np.repeat(cohort["TRAIN"].volumes.mean(0, keepdims=True), 16, axis=0)
    plain, average = scores(judge, cohort["generated"]), scores(judge, changed(mean))
    assert average["unpaired_psnr"].value > plain["unpaired_psnr"].value + 2
    assert "suspicious" in average["unpaired_psnr"].note
    assert "suspicious" not in plain["unpaired_psnr"].note
    assert not plain["unpaired_psnr"].reliable
    assert plain["unpaired_psnr"].value == pytest.approx(plain["unpaired_psnr"].target, abs=1)


def test_copies_have_a_best_match_with_train_and_nobody_with_himself(judge, cohort, changed):
    plain = scores(judge, cohort["generated"])
    copied = scores(judge, changed(cohort["TRAIN"].volumes[:16]))
    assert "gallery=19," in plain["best_match"].name  # 20 HOLD subjects but oneself
    assert plain["best_match"].value == pytest.approx(plain["best_match"].target, abs=1)
    assert copied["best_match"].value > plain["best_match"].value + 10
    real = scores(judge, cohort["HOLD"])
    assert real["best_match"].value == pytest.approx(real["best_match"].target)
    assert real["unpaired_psnr/best_hold"].value < 60
