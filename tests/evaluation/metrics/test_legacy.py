"""The published definitions, and the defects that make them unfit; T10, T16."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.frechet import frechet_distance
from gyri.evaluation.metrics.kernel import kernel_distance
from gyri.evaluation.metrics.legacy import (
    Legacy,
    contrast_and_ssim,
    fid_with_spread,
    first_half_twice,
    legacy_combine,
    legacy_feature_mmd,
    legacy_image_mmd,
    legacy_ms_ssim,
    linear_mmd_of_pairs,
    mean_without_nan,
    pooled_slices,
    slice_fid,
    unpaired_psnr,
)
from gyri.evaluation.metrics.msssim import WEIGHTS
from gyri.registry import METRICS


def test_a_linear_kernel_is_the_distance_of_means():
    x, y = np.random.default_rng(0).standard_normal((2, 2, 5))
    gap = x.mean(0) - y.mean(0)
    kernels = (x @ x.T).sum() / 4 + (y @ y.T).sum() / 4 - (x @ y.T).sum() / 2
    assert linear_mmd_of_pairs(x, y, 1) == pytest.approx(gap @ gap)
    assert kernels == pytest.approx(gap @ gap)


def test_a_linear_kernel_is_blind_to_variance_and_rewards_collapse():
    rng = np.random.default_rng(1)
    real, perfect = rng.standard_normal((2, 1000, 64))
    per_batch = 500 / 999  # divided by N - 1 although there are N / 2 batches
    assert legacy_feature_mmd(real, perfect) == pytest.approx(64 * per_batch, rel=0.03)
    collapsed = np.zeros((1000, 64))
    assert legacy_feature_mmd(real, collapsed) == pytest.approx(32 * per_batch, rel=0.03)
    assert kernel_distance(real, perfect) < 0.01 < kernel_distance(real, collapsed)


def test_the_image_form_averages_over_batches():
    rng = np.random.default_rng(2)
    real, made = rng.standard_normal((2, 200, 64)).astype(np.float32)
    assert legacy_image_mmd(real, made, rng) == pytest.approx(64, rel=0.1)


def test_the_reference_is_its_first_half_twice():
    features = np.arange(800.0).reshape(400, 2)
    used = first_half_twice(features)
    assert used.shape == (400, 2)
    assert used.max() == features[199].max()
    np.testing.assert_array_equal(used[::2], used[1::2])
    np.testing.assert_array_equal(
        first_half_twice(features[:10])[:, 0], [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]
    )


def test_duplicated_rows_raise_the_distance():
    x, y = np.random.default_rng(3).standard_normal((2, 400, 64))
    assert frechet_distance(first_half_twice(x), y) > 1.3 * frechet_distance(x, y)


def test_the_last_scale_is_raised_to_the_fourth_power():
    ones = np.ones(5)
    ssim = np.array([1, 1, 1, 1, 0.5])
    assert legacy_combine(ones, ssim, mapped=False) == pytest.approx(0.5 ** (4 * WEIGHTS[-1]))
    assert legacy_combine(ones, ssim, mapped=True) == pytest.approx(0.75 ** (4 * WEIGHTS[-1]))
    negative = np.array([-0.1, 1, 1, 1, 1])
    assert np.isnan(legacy_combine(negative, ssim, mapped=False))
    assert mean_without_nan(np.array([np.nan, 0.4, 0.6])) == pytest.approx(0.5)
    assert np.isnan(mean_without_nan(np.array([np.nan])))


def test_constants_have_the_luminance_term_alone():
    a, b = 0.3, 0.8
    x, y = (np.full((16, 16, 16), v, np.float32) for v in (a, b))
    luminance = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
    assert contrast_and_ssim(x, y) == pytest.approx((1, luminance), rel=2e-3)
    assert legacy_ms_ssim(x, x, mapped=False) == pytest.approx(1, abs=1e-5)
    with pytest.raises(Refusal, match="fifth scale"):
        legacy_ms_ssim(x[:15], y[:15], mapped=False)


def test_twenty_draws_have_a_spread_that_shrinks_without_new_subjects():
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((200, 4)), rng.standard_normal((200, 4))
    mean, sd = fid_with_spread(x, y, rng)
    assert mean > frechet_distance(x, y) > sd > 0
    assert fid_with_spread(x, np.repeat(y[:1], 50, 0), rng)[1] == pytest.approx(0, abs=1e-12)


def test_a_pool_of_slices_forgets_whose_they_are():
    images = np.random.default_rng(5).random((6, 16, 24, 10), dtype=np.float32)
    assert pooled_slices(images).shape == (60, 64)
    slices = images.transpose(0, 3, 1, 2).reshape(60, 16, 24)
    shuffled = slices[np.random.default_rng(6).permutation(60)]
    nonsense = shuffled.reshape(6, 10, 16, 24).transpose(0, 2, 3, 1)
    assert slice_fid(images, nonsense) == pytest.approx(0, abs=1e-9)


def test_psnr_of_a_known_error():
    x = np.zeros((4, 4, 4), np.float32)
    assert unpaired_psnr(x, x + np.float32(0.1)) == pytest.approx(20, abs=1e-4)


def test_it_is_computed_on_request_only_and_never_counts(judge, cohort):
    from gyri.evaluation.protocol import Judge

    assert "legacy" in METRICS
    assert "legacy" not in judge.metrics
    asked = Judge(cohort["TRAIN"], cohort["HOLD"], 16, 0, None, 20, None, ["spectrum-v1"], True)
    assert "legacy" in asked.metrics
    scores = Legacy().scores(asked.evidence(cohort["generated"]), asked.study)
    assert {s.key for s in scores} >= {
        "legacy_psnr",
        "legacy_ssim",
        "legacy_fid_slices",
        "legacy_mmd_image",
        "legacy_ms_ssim",
        "legacy_ms_ssim_mapped",
        "legacy_fid/spectrum-v1",
        "legacy_fid_duplicated/spectrum-v1",
        "legacy_mmd_features/spectrum-v1",
    }
    assert not any(s.reliable for s in scores)
    assert all(s.name.startswith("legacy_") and np.isfinite(s.value) for s in scores)
