"""T15 to T17 and agreement with torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.metrics.msssim import (
    C1,
    WEIGHTS,
    Diversity,
    Pyramid,
    combine,
    draw_pairs,
    ms_ssim,
    num_scales,
    similarities,
)


def fields(seed: int, shape=(16, 15, 14)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.random((2, *shape), dtype=np.float32))


def test_equal_volumes_are_one():
    x, _ = fields(0, (24, 24, 24))
    assert ms_ssim(x, x) == pytest.approx(1.0, abs=1e-6)


def test_constants_have_the_luminance_term_alone():
    a, b = 0.3, 0.8
    x, y = (np.full((12, 12, 12), v, np.float32) for v in (a, b))
    _, ssim = similarities(Pyramid.of(x, 1), Pyramid.of(y, 1))
    assert ssim == pytest.approx((2 * a * b + C1) / (a**2 + b**2 + C1), rel=1e-3)


def test_the_last_scale_is_raised_to_its_own_weight_once():
    weight = WEIGHTS[-1] / sum(WEIGHTS)
    assert combine([1.0] * 5, 0.5) == pytest.approx(0.5**weight)
    assert combine([1.0, 1.0], 0.5) == pytest.approx(0.5 ** (WEIGHTS[1] / sum(WEIGHTS[:2])))
    assert combine([-0.2, 1.0], 0.5) == 0.0


def test_agrees_with_torchmetrics_at_one_scale():
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = fields(1)
    _, ours = similarities(Pyramid.of(x, 1), Pyramid.of(y, 1))
    a, b = (torch.from_numpy(v)[None, None] for v in (x, y))
    _, full = reference(
        a, b, gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    inside = full[..., 5:-5, 5:-5, 5:-5]  # their mean counts the reflected border, too
    assert ours == pytest.approx(float(inside.mean()), abs=1e-5)


def test_contrast_does_not_depend_on_the_range_convention():
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = fields(2)
    contrast, _ = similarities(Pyramid.of(x, 1), Pyramid.of(y, 1))
    a, b = (2 * torch.from_numpy(v)[None, None] - 1 for v in (x, y))
    _, theirs = reference(
        a, b, gaussian_kernel=True, sigma=1.5, data_range=2.0, return_contrast_sensitivity=True
    )
    assert contrast[0] == pytest.approx(float(theirs), abs=1e-5)


def test_scales_are_those_that_the_grid_holds():
    assert [num_scales((n, n, n)) for n in (8, 11, 20, 40, 80, 128, 176)] == [0, 1, 1, 2, 3, 4, 5]


def test_pairs_are_of_different_subjects():
    pairs = draw_pairs(["a", "a", "b", "c"], 1000, np.random.default_rng(0))
    assert pairs == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert len(draw_pairs([str(i) for i in range(40)], 50, np.random.default_rng(0))) == 50


def test_collapse_is_seen_and_the_mean_image_is_one(judge, cohort, changed):
    one = changed(np.repeat(cohort["generated"].volumes[:1], 16, axis=0))
    score = Diversity().scores(judge.evidence(one), judge.study)[0]
    assert score.value == pytest.approx(1.0, abs=1e-5)
    assert score.value > score.target
    assert "S=1" in score.name


def test_a_few_slices_are_compared_slice_by_slice():
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = fields(3, (14, 12, 3))
    a, b = (torch.from_numpy(v.transpose(2, 0, 1).copy())[:, None] for v in (x, y))
    _, full = reference(
        a, b, gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    assert ms_ssim(x, y) == pytest.approx(float(full[..., 5:-5, 5:-5].mean()), abs=1e-5)


def test_too_small_a_grid_is_refused():
    x, y = fields(3, (10, 10, 12))
    with pytest.raises(Refusal, match="two axes shorter than the window"):
        ms_ssim(x, y)
